// What a name in a guest image may be. Names of an image reach places that give characters a meaning: code that the transpiler
// generates, terminals, other people's tools. So a name is letters and digits with single separators between them, whatever the format
// would allow: no quote, backtick, backslash, bracket, blank, control or line terminator, nothing that opens or closes a comment or a
// template, nothing outside ASCII, and none of the words that JavaScript finds on every object.
//
//   label   high-half                    functions, parameters, fields, cases of the component model
//   plain   nestbox:guest/mmio@0.1.0     imports and exports of a component
//   core    cabi_realloc, $imports, 0, ~lib/rt#new, cm32p2||run   imports and exports of core modules, as compilers make them
//
// Names in custom sections (custom-sections.ts) mean nothing to the program: they are made to fit, not refused.

export type NameKind = "label" | "plain" | "core";

export const LONGEST_NAME = 128;

/** Small letters only, as all names of our world: jco 1.35 traps on capitals in some places. */
const LABEL = "[a-z][a-z0-9]*(?:-[a-z0-9]+)*";
const VERSION = "@[0-9]+(?:[.][0-9]+){0,2}(?:[-+][A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*){0,2}";

const GRAMMARS: Readonly<Record<NameKind, RegExp>> = {
  label: new RegExp(`^${LABEL}$`),
  plain: new RegExp(`^${LABEL}(?::${LABEL}/${LABEL}(?:${VERSION})?)?$`),
  core: /^~?[A-Za-z0-9_$]+(?:(?:[-.:/#@|~]|\|\|)[A-Za-z0-9_$]+)*$/,
};

const ALLOWED: Readonly<Record<NameKind, string>> = {
  label: "words of small letters and digits with single hyphens between them",
  plain: "words of small letters with single hyphens between them, or namespace:package/interface@version",
  core: "letters, digits, _ and $ with single . - : / # @ | ~ between them",
};

/** Words that name a property of every object, or that JavaScript gives a meaning where a name may stand. */
const TAKEN: ReadonlySet<string> = new Set([
  ...["__proto__", "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__"],
  ...["constructor", "prototype", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable"],
  ...["toLocaleString", "toString", "valueOf"],
  ...["arguments", "await", "eval", "globalThis", "import", "require"],
]);

/** What is wrong with the name, and what to do; null: nothing. */
export function faultOfName(name: string, kind: NameKind): string | null {
  if (name.length > LONGEST_NAME) return `the name is longer than ${LONGEST_NAME} characters; shorten it`;
  if (TAKEN.has(name)) return "JavaScript gives this name a meaning of its own; rename it";
  if (!GRAMMARS[kind].test(name)) return `names here are ${ALLOWED[kind]}; rename it`;
  return null;
}

const MOST_SHOWN = 80;

/** A name as a message shows it: in quotes, everything but plain ASCII escaped, cut off where it becomes too long to read. */
export function quoted(name: string): string {
  let shown = "";
  for (const character of name.slice(0, MOST_SHOWN)) shown += escaped(character);
  return name.length > MOST_SHOWN ? `"${shown}…" (${name.length} characters)` : `"${shown}"`;
}

function escaped(character: string): string {
  if (character === '"' || character === "\\") return `\\${character}`;
  const code = character.codePointAt(0)!;
  return code >= 0x20 && code < 0x7f ? character : `\\u{${code.toString(16)}}`;
}
