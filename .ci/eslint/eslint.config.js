import js from "@eslint/js";
import globals from "globals";

export default [
  js.configs.recommended,
  {
    files: ["**/*.js"],
    ignores: ["*.config.js"],
    languageOptions: { ecmaVersion: 2024, sourceType: "script", globals: globals.browser },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      // Every script sees the constants of the scripts before it. tsc knows which there are, and ESLint does not.
      "no-undef": "off",
      "no-redeclare": ["error", { builtinGlobals: false }],
      "no-unused-vars": ["error", { vars: "local", args: "after-used" }],
      "max-lines": ["error", 500],
      "max-lines-per-function": ["error", { max: 60, skipComments: true, IIFEs: false }],
      curly: ["error", "multi-line"],
      eqeqeq: "error",
      "no-var": "error",
      "prefer-const": "error",
      "no-shadow": "off",
    },
  },
];
