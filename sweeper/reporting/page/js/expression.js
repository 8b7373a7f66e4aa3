// The filter: a small expression language over the columns, parsed and evaluated here. Nothing is ever run as code.
//
// Numbers, 'texts', true, false, none; names, `a name with spaces` in backticks; + - * / %; == != < <= > >=; in, not in;
// and, or, not; (...), [...]. A label stands for its value. What compares nothing is searched for: it finds the rows that hold it.
"use strict";

(function (sweeper) {
  const TOKEN =
    /\s*(?:(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|`([^`]*)`|([A-Za-z_][\w.]*)|(==|!=|<=|>=|[-+*/%<>()[\],]))/y;
  const LEVELS = [["or"], ["and"], ["==", "!=", "<", "<=", ">", ">=", "in", "not in"], ["+", "-"], ["*", "/", "%"]];
  const DEEPEST = 100;

  class ExpressionError extends Error {}

  function tokens(source) {
    const found = [];
    TOKEN.lastIndex = 0;
    while (source.slice(TOKEN.lastIndex).trim() !== "") {
      const at = TOKEN.lastIndex;
      const match = TOKEN.exec(source);
      if (match === null)
        throw new ExpressionError(`cannot read ${JSON.stringify(source.slice(at).trim().slice(0, 20))}`);
      if (match[1] !== undefined) found.push({ kind: "value", value: number(match[1]) });
      else if ((match[2] ?? match[3]) !== undefined) {
        found.push({ kind: "value", value: (match[2] ?? match[3]).replace(/\\(.)/g, "$1") });
      } else if (match[4] !== undefined) found.push({ kind: "name", text: match[4] });
      else if (match[5] !== undefined) {
        const word = /^(and|or|not|in|true|false|none|null)$/i.test(match[5]);
        found.push({ kind: word ? "word" : "name", text: word ? match[5].toLowerCase() : match[5] });
      } else found.push({ kind: "sign", text: match[6] });
    }
    return found;
  }

  function number(text) {
    const value = Number(text);
    return Number.isInteger(value) && !Number.isSafeInteger(value) && /^\d+$/.test(text) ? BigInt(text) : value;
  }

  /** Parse into a tree of [operator, ...parts]; names are looked up in `known`. */
  function parse(source, known) {
    const list = tokens(source);
    let at = 0;
    let deep = 0;
    const peek = (text) =>
      list[at] !== undefined && list[at].kind !== "value" && list[at].kind !== "name" && list[at].text === text;
    const take = (text) => peek(text) && ++at > 0;
    const expect = (text) => {
      if (!take(text))
        throw new ExpressionError(
          `expected ${text} ${list[at] ? "before " + (list[at].text ?? list[at].value) : "at the end"}`,
        );
    };

    function operator(level) {
      if (LEVELS[level].includes("not in") && peek("not") && list[at + 1]?.text === "in") {
        at += 2;
        return "not in";
      }
      return LEVELS[level].find((text) => take(text));
    }

    function binary(level) {
      if (level === LEVELS.length) return unary();
      if (level === 2 && take("not")) return ["not", nested(() => binary(2))];
      let left = binary(level + 1);
      for (let sign = operator(level); sign !== undefined; sign = operator(level))
        left = [sign, left, binary(level + 1)];
      return left;
    }

    function nested(read) {
      if (++deep > DEEPEST) throw new ExpressionError("is nested too deeply");
      const value = read();
      deep -= 1;
      return value;
    }

    function unary() {
      if (take("-")) return ["negative", nested(unary)];
      if (take("(")) {
        const inner = nested(() => binary(0));
        expect(")");
        return inner;
      }
      if (take("[")) {
        const items = [];
        while (!take("]")) {
          items.push(nested(() => binary(0)));
          if (!peek("]")) expect(",");
        }
        return ["list", ...items];
      }
      const token = list[at++];
      if (token === undefined) throw new ExpressionError("is not finished");
      if (token.kind === "value") return ["value", token.value];
      if (token.kind === "word" && ["true", "false", "none", "null"].includes(token.text)) {
        return ["value", { true: true, false: false }[token.text] ?? null];
      }
      if (token.kind !== "name") throw new ExpressionError(`${token.text} is out of place`);
      if (!known.has(token.text)) throw new ExpressionError(`there is no column ${token.text}`);
      return ["name", token.text];
    }

    const tree = binary(0);
    if (at < list.length) throw new ExpressionError(`${list[at].text ?? list[at].value} is out of place`);
    return tree;
  }

  const comparable = (a, b) =>
    (sweeper.dataset.isNumber(a) && sweeper.dataset.isNumber(b)) || (typeof a === "string" && typeof b === "string");
  const same = (a, b) => (sweeper.dataset.isNumber(a) && sweeper.dataset.isNumber(b) ? a == b : a === b); // eslint-disable-line eqeqeq -- 5n == 5
  const within = (a, b) =>
    Array.isArray(b)
      ? b.some((item) => same(a, item))
      : typeof b === "string" && typeof a === "string" && b.includes(a);
  const BINARY = {
    "==": same,
    "!=": (a, b) => !same(a, b),
    in: within,
    "not in": (a, b) => !within(a, b),
    "<": (a, b) => comparable(a, b) && a < b,
    "<=": (a, b) => comparable(a, b) && a <= b,
    ">": (a, b) => comparable(a, b) && a > b,
    ">=": (a, b) => comparable(a, b) && a >= b,
    "+": (a, b) => (typeof a === "string" ? a + sweeper.dataset.text(b) : Number(a) + Number(b)),
    "-": (a, b) => Number(a) - Number(b),
    "*": (a, b) => Number(a) * Number(b),
    "/": (a, b) => Number(a) / Number(b),
    "%": (a, b) => Number(a) % Number(b),
  };

  function evaluate(tree, get) {
    const [kind, left, right] = tree;
    switch (kind) {
      case "value":
        return left;
      case "name":
        return get(left);
      case "list":
        return tree.slice(1).map((item) => evaluate(item, get));
      case "not":
        return !evaluate(left, get);
      case "negative": {
        const value = evaluate(left, get);
        return typeof value === "bigint" ? -value : -Number(value);
      }
      case "and":
        return evaluate(left, get) && evaluate(right, get);
      case "or":
        return evaluate(left, get) || evaluate(right, get);
      default:
        return BINARY[kind](evaluate(left, get), evaluate(right, get));
    }
  }

  const MATCHES = { "==": "or", in: "or", "!=": "and", "not in": "and" };

  /** A tree in which a value that has a label may be called by it as well, as `exclude` of an experiment takes either. */
  function labelled(tree, dataset) {
    const [kind, ...parts] = tree;
    if (kind === "value" || kind === "name") return tree;
    const names = parts.filter((part) => part[0] === "name");
    const label = MATCHES[kind] && names.length === 1 ? `${names[0][1]}.label` : "";
    if (dataset.column(label)?.role !== "label") return [kind, ...parts.map((part) => labelled(part, dataset))];
    return [MATCHES[kind], tree, [kind, ...parts.map((part) => (part === names[0] ? ["name", label] : part))]];
  }

  /** Whether a tree asks something of a row: a number alone, or a text, is what somebody looks for. */
  function asks(tree, dataset) {
    const [kind, ...parts] = tree;
    if (LEVELS[2].includes(kind)) return true;
    if (kind === "value") return false;
    if (kind !== "name") return parts.some((part) => asks(part, dataset));
    const { values } = dataset.column(parts[0]);
    return values?.length > 0 && values.every((value) => typeof value === "boolean");
  }

  /** A test of rows: {holds(row), search, error}. What asks nothing is searched for; `error`: why it is no expression. */
  function compile(source, dataset) {
    const trimmed = source.trim();
    if (trimmed === "") return { holds: () => true, search: false, error: "" };
    let [words, reason] = [trimmed, "compares nothing"];
    try {
      const tree = parse(trimmed, new Set(dataset.columns.map((column) => column.name)));
      if (asks(tree, dataset)) {
        const meant = labelled(tree, dataset);
        const holds = (row) => Boolean(evaluate(meant, (name) => dataset.column(name).value(row)));
        return { holds, search: false, error: "" };
      }
      if (tree[0] === "value" && typeof tree[1] === "string") words = tree[1]; // in quotes, as with blanks at its ends
    } catch (error) {
      if (!(error instanceof ExpressionError)) throw error;
      reason = error.message;
    }
    return { holds: search(words, dataset), search: true, error: reason };
  }

  /** Rows one of whose values holds these words, as they stand; a number is looked for whole, or 1 would be in every seed. */
  function search(words, dataset) {
    const wanted = words.toLowerCase();
    const figure = /^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(words) ? number(words) : null;
    const hit = (value, label, meant = label) => {
      const is = sweeper.dataset.isNumber(value);
      if (is && figure !== null && same(value, figure)) return true;
      const bare = is && [sweeper.dataset.text(value), sweeper.dataset.rounded(value)].includes(label);
      return bare ? label === words : [label, meant].some((text) => text.toLowerCase().includes(wanted));
    };
    const told = dataset.columns.filter((column) => column.of !== null);
    const hits = told.map((column) => column.values.map((value, place) => hit(value, column.labels[place], column.texts?.[place])));
    return (row) =>
      told.some((column, place) => column.of[row] >= 0 && hits[place][column.of[row]]) ||
      dataset.metrics.some((column) => hit(column.value(row), column.label(row)));
  }

  const FALLBACK = "status == 'failed'";
  const MOST_QUOTED = 24;

  /** An expression that this very sweep understands, and that finds something: the values are those of one trial. */
  function example(dataset) {
    const usual = ({ name, values }) => values.length > 1 && /^[A-Za-z_]\w*$/.test(name);
    const number = dataset.axes.find((axis) => usual(axis) && axis.numeric);
    const word = dataset.axes.find((axis) => usual(axis) && axis.values.every((value) => typeof value === "string"));
    const least = number?.values.reduce((a, b) => (b < a ? b : a));
    const filled = (row) => [number, word].every((axis) => axis === undefined || axis.of[row] >= 0);
    const rows = Array.from({ length: dataset.size }, (_, row) => row).filter(filled);
    const row = rows.find((one) => number === undefined || number.value(one) > least) ?? rows[0];
    if (row === undefined) return FALLBACK;
    const found = [number && `${number.name} >= ${number.value(row)}`, word && quotation(word.name, word.value(row))];
    const text = found.filter(Boolean).join(" and ");
    const { holds, search } = compile(text, dataset); // a column may be called `in`, or a text be what no quotes hold
    return text !== "" && !search && holds(row) ? text : FALLBACK;
  }

  /** That a column has a text, or where it is long, its beginning. */
  function quotation(name, text) {
    const letters = [...text.split("\n")[0]];
    const quoted = `'${letters.slice(0, MOST_QUOTED).join("").replace(/[\\']/g, "\\$&")}'`;
    return letters.length <= MOST_QUOTED && !text.includes("\n") ? `${name} == ${quoted}` : `${quoted} in ${name}`;
  }

  sweeper.expression = { compile, example, parse, evaluate, ExpressionError };
})((globalThis.sweeper ??= {}));
