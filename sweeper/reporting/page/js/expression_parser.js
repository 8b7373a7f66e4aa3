// Parses the filter's expressions into trees. No DOM.
//
// Numbers, 'texts', true, false, none; names, `a name with spaces` in backticks; + - * / %; == != < <= > >=; in, not in;
// and, or, not; (...), [...].

/** @import { Value } from "./value_text.js" */

/** @typedef {[operator: string, ...operands: any[]]} Tree operands are trees, a name, or a value */
/** @typedef {{kind: "value" | "name" | "keyword" | "sign", text: string, value: Value}} Token */

/** How many letters of one word are missing or too many to make those of the other, in any order. @param {string} a @param {string} b */
function countEdits(a, b) {
  let [rest, more] = [b, 0];
  for (const letter of a) {
    if (rest.includes(letter)) rest = rest.replace(letter, "");
    else more += 1;
  }
  return Math.max(more, rest.length);
}

/** The name most like a word; undefined if none is similar. @param {string} word @param {Iterable<string>} names */
function findNearest(word, names) {
  const limit = Math.max(1, Math.floor(word.length / 3));
  const ranked = [...names].map((name) => ({ name, edits: countEdits(word.toLowerCase(), name.toLowerCase()) }));
  return ranked.filter(({ edits }) => edits <= limit).sort((a, b) => a.edits - b.edits)[0]?.name;
}

export class ExpressionError extends Error {}

export class ExpressionParser {
  static TOKEN =
    /\s*(?:(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|`((?:[^`]|``)*)`|([A-Za-z_][\w.]*)|(==|!=|<=|>=|[-+*/%<>()[\],]))/y;
  static KEYWORD = /^(and|or|not|in|true|false|none|null)$/i;
  static COMPARISONS = ["==", "!=", "<", "<=", ">", ">=", "in", "not in"];
  static LEVELS = [["or"], ["and"], ExpressionParser.COMPARISONS, ["+", "-"], ["*", "/", "%"]];
  static NOT_LEVEL = 2; // `not` binds like a comparison
  static MAX_DEPTH = 100;

  /**
   * Parse an expression.
   * @param {string} source
   * @param {Set<string>} columns the names that it may use
   * @returns {Tree}
   * @throws {ExpressionError} with the reason in words
   */
  static parse(source, columns) {
    const parser = new ExpressionParser(source, columns);
    const tree = parser.parseBinary(0);
    const rest = parser.tokens[parser.next];
    if (rest !== undefined) throw new ExpressionError(`${rest.text} is out of place`);
    return tree;
  }

  /** A number; a large integer is a BigInt. @param {string} text */
  static toNumber(text) {
    const value = Number(text);
    return Number.isInteger(value) && !Number.isSafeInteger(value) && /^\d+$/.test(text) ? BigInt(text) : value;
  }

  /** @param {string} source @returns {Token[]} */
  static tokenize(source) {
    const { TOKEN, KEYWORD } = ExpressionParser;
    /** @type {Token[]} */
    const tokens = [];
    TOKEN.lastIndex = 0;
    while (source.slice(TOKEN.lastIndex).trim() !== "") {
      const start = TOKEN.lastIndex;
      const match = TOKEN.exec(source);
      if (match === null) throw new ExpressionError(`cannot read ${JSON.stringify(source.slice(start).trim().slice(0, 20))}`);
      const [, number, single, double, quotedName, word, sign] = match;
      const text = single ?? double;
      if (number !== undefined) tokens.push({ kind: "value", text: number, value: ExpressionParser.toNumber(number) });
      else if (text !== undefined) tokens.push({ kind: "value", text, value: text.replace(/\\(.)/g, "$1") });
      else if (quotedName !== undefined) tokens.push({ kind: "name", text: quotedName.replaceAll("``", "`"), value: null });
      else if (word === undefined) tokens.push({ kind: "sign", text: sign, value: null });
      else if (KEYWORD.test(word)) tokens.push({ kind: "keyword", text: word.toLowerCase(), value: null });
      else tokens.push({ kind: "name", text: word, value: null });
    }
    return tokens;
  }

  /** @param {string} source @param {Set<string>} columns */
  constructor(source, columns) {
    this.tokens = ExpressionParser.tokenize(source);
    this.columns = columns;
    this.next = 0; // index of the token to be read
    this.depth = 0;
  }

  /** Whether the next token is this keyword or sign. @param {string} text @param {number} [ahead] */
  isNext(text, ahead = 0) {
    const token = this.tokens[this.next + ahead];
    return token !== undefined && (token.kind === "keyword" || token.kind === "sign") && token.text === text;
  }

  /** Read this keyword or sign if it is next. @param {string} text */
  accept(text) {
    if (!this.isNext(text)) return false;
    this.next += 1;
    return true;
  }

  /** @param {string} text */
  expect(text) {
    if (this.accept(text)) return;
    const token = this.tokens[this.next];
    throw new ExpressionError(`expected ${text} ${token ? "before " + token.text : "at the end"}`);
  }

  /** @param {number} level */
  acceptOperator(level) {
    const operators = ExpressionParser.LEVELS[level];
    if (operators.includes("not in") && this.isNext("not") && this.isNext("in", 1)) {
      this.next += 2;
      return "not in";
    }
    return operators.find((text) => this.accept(text));
  }

  /** @param {number} level @returns {Tree} */
  parseBinary(level) {
    if (level === ExpressionParser.LEVELS.length) return this.parseUnary();
    if (level === ExpressionParser.NOT_LEVEL && this.accept("not")) return ["not", this.nest(() => this.parseBinary(level))];
    let left = this.parseBinary(level + 1);
    for (let operator = this.acceptOperator(level); operator !== undefined; operator = this.acceptOperator(level)) {
      left = [operator, left, this.parseBinary(level + 1)];
    }
    return left;
  }

  /** @param {() => Tree} parse @returns {Tree} */
  nest(parse) {
    if (++this.depth > ExpressionParser.MAX_DEPTH) throw new ExpressionError("it is nested too deeply");
    const tree = parse();
    this.depth -= 1;
    return tree;
  }

  /** @returns {Tree} */
  parseUnary() {
    if (this.accept("-")) return ["negative", this.nest(() => this.parseUnary())];
    if (this.accept("(")) {
      const inner = this.nest(() => this.parseBinary(0));
      this.expect(")");
      return inner;
    }
    if (this.accept("[")) return this.parseList();
    const token = this.tokens[this.next++];
    if (token === undefined) throw new ExpressionError("it is not finished");
    if (token.kind === "value") return ["value", token.value];
    if (token.kind === "keyword" && ["true", "false", "none", "null"].includes(token.text)) {
      return ["value", token.text === "true" ? true : token.text === "false" ? false : null];
    }
    if (token.kind !== "name") throw new ExpressionError(`${token.text} is out of place`);
    return ["name", this.findColumn(token.text)];
  }

  /** The column of a name, whose case does not matter if only one column fits. @param {string} name */
  findColumn(name) {
    if (this.columns.has(name)) return name;
    const same = [...this.columns].filter((column) => column.toLowerCase() === name.toLowerCase());
    if (same.length === 1) return same[0];
    const nearest = findNearest(name, this.columns);
    throw new ExpressionError(`there is no column ${name}${nearest === undefined ? "" : `; did you mean ${nearest}?`}`);
  }

  /** @returns {Tree} */
  parseList() {
    /** @type {Tree[]} */
    const items = [];
    while (!this.accept("]")) {
      items.push(this.nest(() => this.parseBinary(0)));
      if (!this.isNext("]")) this.expect(",");
    }
    return ["list", ...items];
  }
}
