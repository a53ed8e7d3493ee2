// Hostile names: code that sets a canary, wrapped so that it leaves whatever quotes, brackets, comment or template a generator may have
// put it in; and names that only are unusual.

import { type Bytes, utf8 } from "./component-encoder.ts";

type Random = () => number;

const CANARY = "nestboxCanary";

/** Whether code out of an image has run since the last call. */
export function canarySang(): boolean {
  const realm = globalThis as { [CANARY]?: unknown };
  const sang = realm[CANARY] !== undefined;
  delete realm[CANARY];
  return sang;
}

const CODE: readonly string[] = [
  `globalThis.${CANARY}=1`,
  `${CANARY}=1`,
  `Function(\`globalThis.${CANARY}=1\`)()`,
  `(()=>{}).constructor(\`globalThis.${CANARY}=1\`)()`,
  `[].constructor.constructor(\`globalThis.${CANARY}=1\`)()`,
  `eval(\`globalThis.${CANARY}=1\`)`,
  `setTimeout(()=>{globalThis.${CANARY}=1})`,
  `import(\`data:text/javascript,globalThis.${CANARY}=1\`)`,
  `process.getBuiltinModule(\`node:vm\`).runInThisContext(\`${CANARY}=1\`)`,
];

/** `name` is what should stand there; `n` a small number, as transpilers number their variables. */
type Wrapping = (code: string, name: string, n: number) => string;

const WRAPPINGS: Readonly<Record<string, Wrapping>> = {
  "member, single quotes": (code, name, n) => `${name}'];${code};exports${n}['${name}`,
  "value in single quotes": (code, name) => `${name}'+(${code})+'`,
  "value in double quotes": (code, name) => `${name}"+(${code})+"`,
  "statement in single quotes": (code, name) => `${name}';${code};'`,
  "statement in double quotes": (code, name) => `${name}";${code};"`,
  "key of an object": (code, name) => `x':(${code}),'${name}`,
  "computed key": (code, name) => `x':0,[(${code})]:0,'${name}`,
  "element of a list": (code, name) => `${name}',(${code}),'`,
  "argument of a call": (code, name) => `${name}'),(${code}),('`,
  "template, substitution": (code, name) => `${name}\${${code}}`,
  "template, end": (code, name) => `${name}\`+(${code})+\``,
  "comment, end": (code, name) => `${name}*/${code}/*`,
  "line comment, line feed": (code, name) => `${name}\n${code}//`,
  "line comment, carriage return": (code, name) => `${name}\r${code}//`,
  "line comment, U+2028": (code, name) => `${name}\u2028${code}//`,
  "line comment, U+2029": (code, name) => `${name}\u2029${code}//`,
  "regular expression": (code, name) => `${name}/+(${code})+/`,
  "end of a function": (code, name) => `${name}');}${code};{('`,
  "escaped quote": (code, name) => `${name}\\'];${code};//`,
  "bare code": (code) => code,
  "interface, quote": (code, name) => `a:b/${name}'+(${code})+'@1.0.0`,
  "a URL": (code) => `url=<https://x/'+(${code})+'>`,
  "a dependency": (code) => `unlocked-dep=<a:b'+(${code})+'>`,
  "a relative URL": (code) => `relative-url=<'+(${code})+'>`,
  "a method": (code, name) => `[method]${name}.x'+(${code})+'`,
};
const WRAPPING_NAMES = Object.keys(WRAPPINGS);

const UNUSUAL: readonly string[] = [
  ...[
    "",
    " ",
    "*",
    "'",
    '"',
    "`",
    "\\",
    "\n",
    "\r",
    "\u2028",
    "\u2029",
    "\0",
    "${",
    "*/",
    "//",
    "/*",
    "<!--",
    "-->",
    "$\u{7b}}",
  ],
  ...[
    "__proto__",
    "constructor",
    "prototype",
    "await",
    "process",
    "globalThis",
    "then",
    "toString",
    "valueOf",
    "arguments",
  ],
  ...[
    "eval",
    "import",
    "let",
    "default",
    "this",
    "new.target",
    "symbolCabiLower",
    "instantiateCore",
    "getCoreModule",
    "imports",
  ],
  ...["exports0", "exports1", "module0", "trampoline0", "gen", "run", "memory0", "undefined", "Object", "WebAssembly"],
  ...[
    "a-b",
    "A-B",
    "a--b",
    "-a",
    "a-",
    "a.b",
    "a/b",
    "a:b/c",
    "a:b/c@0.1.0",
    "[constructor]x",
    "[method]x.y",
    "[static]x.y",
    "%run",
  ],
  ...["é", "ﬀ", "\u{1f600}", "\u202erun", "\u200b", "\ufeffrun", "\u001b[2J", "\u009b31m", "\ud7ff", "run\u0000"],
];

const pick = <T>(random: Random, list: readonly T[]): T => list[random() % list.length]!;

/** A name for a slot where `name` should stand. */
export function hostileName(random: Random, name: string): Bytes {
  switch (random() % 8) {
    case 0:
      return utf8(pick(random, UNUSUAL));
    case 1:
      return utf8(Array.from({ length: 1 + (random() % 6) }, () => pick(random, UNUSUAL)).join(""));
    case 2:
      return Array.from({ length: random() % 40 }, () => random() & 0xff);
    case 3:
      return utf8(pick(random, [...UNUSUAL, "x"]).repeat(random() % 2000));
    default: {
      const wrap = WRAPPINGS[pick(random, WRAPPING_NAMES)]!;
      return utf8(wrap(pick(random, CODE), name, random() % 4));
    }
  }
}

/** Each wrapping around code that works wherever it is evaluated; the guest's instance is jco's number 1 (positions.ts). */
export function everyBreakout(name: string): { readonly wrapping: string; readonly bytes: Bytes }[] {
  return WRAPPING_NAMES.map((wrapping) => ({ wrapping, bytes: utf8(WRAPPINGS[wrapping]!(CODE[0]!, name, 1)) }));
}
