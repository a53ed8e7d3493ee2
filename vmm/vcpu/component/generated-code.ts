// The JavaScript that jco generates for a component, read as a syntax tree and held to its shape. Nothing of it is ever evaluated.
// What nestbox needs of it is the order in which core modules are instantiated and what each is given (link-plan.ts): a dozen kinds of
// statement of the function `instantiate` and of the generator inside it. The rest is glue that a guest of our world does not use.
//
//     text  →  readGeneratedCode: syntax tree  →  linkingStatements: what links, each statement of a known shape  →  link-plan.ts
//
// The text holds names of the image, so it is hostile even though jco wrote it: a name that breaks out of its quotes shows here as a
// statement, an identifier or a property that jco does not write, and the image is refused.

import { type Expression, type FunctionDeclaration, type Node, type Program, parse, type Statement } from "acorn";
import { quoted } from "./name-grammar.ts";

export interface GeneratedCode {
  readonly program: Program;
  /** Statements of `instantiate`, then those of its generator, in order. */
  readonly statements: readonly Statement[];
  /** Local name of the core function that the export `run` calls. */
  readonly run: string;
}

const NOT_AS_EXPECTED = "the code that jco made for it is not what nestbox expects";

/** Takes the generated text apart; a string is what is not as it must be. */
export function readGeneratedCode(source: string): GeneratedCode | string {
  let program: Program;
  try {
    program = parse(source, { ecmaVersion: 2025, sourceType: "module" });
  } catch {
    return `${NOT_AS_EXPECTED}: it is not a JavaScript module`;
  }
  for (const node of program.body) {
    if (node.type !== "ExportNamedDeclaration" || node.declaration?.type !== "FunctionDeclaration") continue;
    if (node.declaration.id?.name !== "instantiate") continue;
    const outer = node.declaration.body.body;
    const inner = outer.map(generatorOf).find((body) => body !== null);
    if (inner == null) break;
    const statements = [...outer, ...inner];
    const run = calledByRun(statements);
    return run === null ? `${NOT_AS_EXPECTED}: its run calls no single function` : { program, statements, run };
  }
  return `${NOT_AS_EXPECTED}: it has no function instantiate`;
}

/** `let gen = (function* …() { … })();`: the body, or null. */
function generatorOf(statement: Statement): Statement[] | null {
  if (statement.type !== "VariableDeclaration") return null;
  const init = statement.declarations[0]?.init;
  if (init?.type !== "CallExpression" || init.callee.type !== "FunctionExpression") return null;
  return init.callee.generator ? init.callee.body.body : null;
}

/** The one core export, by its local name, that the function `run` calls without an argument. */
function calledByRun(statements: readonly Statement[]): string | null {
  const coreExports = new Set<string>();
  let run: FunctionDeclaration | null = null;
  for (const statement of statements) {
    if (statement.type === "FunctionDeclaration" && statement.id.name === "run") run = statement;
    if (/^x = exports#(\.p|\[S\]);$/.test(shape(statement))) {
      const { expression } = statement as { expression: Expression } & Statement;
      if (expression.type === "AssignmentExpression" && expression.left.type === "Identifier") {
        coreExports.add(expression.left.name);
      }
    }
  }
  if (run === null) return null;
  const called = new Set<string>();
  for (const node of nodesOf(run)) {
    if (node.type !== "CallExpression") continue;
    const { callee, arguments: given } = node as Node & { callee: Node & { name?: string }; arguments: Node[] };
    if (given.length === 0 && callee.name !== undefined && coreExports.has(callee.name)) called.add(callee.name);
  }
  const [only] = called;
  return called.size === 1 ? only! : null;
}

/** Every node under `root`, `root` first. */
function* nodesOf(root: Node): Generator<Node> {
  const open: Node[] = [root];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    yield node;
    for (const value of Object.values(node) as unknown[]) {
      for (const child of Array.isArray(value) ? (value as unknown[]) : [value]) if (isNode(child)) open.push(child);
    }
  }
}

const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && typeof (value as Node).type === "string";

/** Local names that jco numbers; their digits are not part of a shape. */
const NUMBERED = /^(module|exports|memory|realloc|postReturn|instanceFlags|trampoline|_trampoline)\d+(Async)?$/;
/** Names that a shape shows as they are; every other one is `x`. */
const SHOWN: ReadonlySet<string> = new Set([
  ...["getCoreModule", "imports", "instantiateCore", "symbolCabiLower", "Object", "WebAssembly", "INSTANCE_FLAGS"],
  ...["undefined", "globalThis", "run"],
]);
const SHOWN_PROPERTIES: ReadonlySet<string> = new Set(["assign", "exports", "fnName", "promising", "set"]);

/**
 * The form of a statement as text: what jco always writes stands there, names that depend on the image are `x`, `.p` and `S`. A form that
 * linking has no use for is `?`.
 */
function shape(node: Node | null | undefined): string {
  const tree = node as Statement | Expression | null | undefined;
  switch (tree?.type) {
    case "Identifier": {
      const numbered = NUMBERED.exec(tree.name);
      if (numbered !== null) return `${numbered[1]}#${numbered[2] ?? ""}`;
      return SHOWN.has(tree.name) ? tree.name : "x";
    }
    case "Literal":
      return typeof tree.value === "string" ? "S" : typeof tree.value === "number" ? "N" : String(tree.value);
    case "MemberExpression": {
      const { object, property } = tree;
      if (tree.optional || object.type === "Super") return "?";
      if (tree.computed) return `${shape(object)}[${shape(property)}]`;
      if (property.type !== "Identifier") return "?";
      return `${shape(object)}.${SHOWN_PROPERTIES.has(property.name) ? property.name : "p"}`;
    }
    case "CallExpression":
      return tree.optional ? "?" : `${shape(tree.callee)}(${tree.arguments.map(shape).join(", ")})`;
    case "ObjectExpression":
      return `{${tree.properties.map((property) => (property.type === "Property" && property.kind === "init" && !property.computed && !property.method ? `p: ${shape(property.value)}` : "?")).join(", ")}}`;
    case "AssignmentExpression":
      return tree.operator === "=" ? `${pattern(tree.left)} = ${shape(tree.right)}` : "?";
    case "BinaryExpression":
      return tree.operator === "===" ? `${shape(tree.left)} === ${shape(tree.right)}` : "?";
    case "ExpressionStatement":
      return `${shape(tree.expression)};`;
    case "VariableDeclaration": {
      const [declarator, ...more] = tree.declarations;
      return more.length > 0 ? "?" : `${tree.kind} ${pattern(declarator!.id)} = ${shape(declarator!.init)};`;
    }
    case "BlockStatement":
      return `{${tree.body.map(shape).join(" ")}}`;
    case "IfStatement":
      return tree.alternate ? "?" : `if (${shape(tree.test)}) ${shape(tree.consequent)}`;
    case "TryStatement":
      return tree.finalizer ? "?" : `try ${shape(tree.block)} catch ${shape(tree.handler?.body)}`;
    case "ReturnStatement":
      return `return ${shape(tree.argument)};`;
    default:
      return "?";
  }
}

/** What is assigned to: a name, a member, or an object taken apart to names. */
function pattern(node: Node): string {
  if (node.type !== "ObjectPattern") return shape(node);
  const { properties } = node as Node & { properties: readonly Node[] };
  const parts = properties.map((property) => {
    const { type, computed, key, value } = property as Node & { computed: boolean; key: Node; value: Node };
    if (type !== "Property" || computed || key.type !== "Identifier" || value.type !== "Identifier") return "?";
    return `${(key as Node & { name: string }).name === "exports" ? "exports" : "p"}: ${shape(value)}`;
  });
  return `{${parts.join(", ")}}`;
}

const CORE_EXPORT = "exports#(?:\\.p|\\[S\\])";
const OPTIONS = "\\{(?:p: (?:memory|realloc|postReturn)#(?:, )?)*\\}";
const GIVEN = `(?:Object\\.assign\\((?:trampoline#|${CORE_EXPORT}), \\{p: (?:true|false)\\}\\)|trampoline#|${CORE_EXPORT})`;
const GIVEN_MODULE = `\\{p: ${GIVEN}(?:, p: ${GIVEN})*\\}`;
const whole = (text: string) => new RegExp(`^${text}$`);

/** Statements that link. */
const LINKING: readonly RegExp[] = [
  whole("const module# = getCoreModule\\(S\\);"),
  whole("const \\{p: x(?:, p: x)*\\} = imports\\[S\\];"),
  whole(
    `\\{exports: exports#\\} = instantiateCore\\(module#(?:, \\{p: ${GIVEN_MODULE}(?:, p: ${GIVEN_MODULE})*\\})?\\);`,
  ),
  whole(`(?:x|memory#|realloc#|postReturn#) = ${CORE_EXPORT};`),
  whole(`if \\(x\\[symbolCabiLower\\]\\) \\{trampoline# = x\\[symbolCabiLower\\]\\(${OPTIONS}\\);\\}`),
];

/** Statements that jco writes for things a guest of our world does not use, or checks that are made elsewhere. */
const WITHOUT_USE: readonly RegExp[] = [
  whole("INSTANCE_FLAGS\\.set\\(N, instanceFlags#\\);"),
  whole("_trampoline#\\.fnName = S;"),
  /^if \(x === undefined\) /,
  whole(
    `try \\{(?:realloc|postReturn)#Async = WebAssembly\\.promising\\(${CORE_EXPORT}\\);\\} catch \\{(?:realloc|postReturn)#Async = ${CORE_EXPORT};\\}`,
  ),
  whole("return \\{p: run\\};"),
];

/**
 * The statements that link core modules, in order, once the whole program is known to have no part that jco does not write; a string
 * says what has. `return` and declarations of glue are left out.
 */
export function linkingStatements({ program, statements }: GeneratedCode): Statement[] | string {
  const stranger = strangePart(program);
  if (stranger !== null) return `${NOT_AS_EXPECTED}: it contains ${stranger}`;
  const linking: Statement[] = [];
  for (const statement of statements) {
    const form = shape(statement);
    if (LINKING.some((known) => known.test(form))) {
      linking.push(statement);
      continue;
    }
    const inert = ["FunctionDeclaration", "ClassDeclaration", "VariableDeclaration"].includes(statement.type);
    // `return promise || maybeSyncReturn;` ends `instantiate`.
    if (inert || statement.type === "ReturnStatement" || WITHOUT_USE.some((known) => known.test(form))) continue;
    return `${NOT_AS_EXPECTED}: it contains a statement of another kind`;
  }
  return linking;
}

const words = (text: string): ReadonlySet<string> => new Set(text.split(/\s+/));

/** Globals that jco's glue names. */
const GLOBALS = words(
  `Array ArrayBuffer BigInt DataView Error Map Math Number Object Promise RangeError Set String Symbol TypeError Uint8Array WebAssembly
   arguments clearInterval console globalThis queueMicrotask setInterval setTimeout undefined`,
);
/** Names that give code more than it was handed, as an identifier or as a property. */
const FORBIDDEN = words(
  `__proto__ __defineGetter__ __defineSetter__ __lookupGetter__ __lookupSetter__ caller callee constructor prototype getPrototypeOf
   setPrototypeOf getOwnPropertyDescriptor defineProperty eval Function Reflect Proxy require importScripts window self global document`,
);
/** Forms that take in other code, or that jco does not write. */
const FORBIDDEN_FORMS = words(
  `ImportDeclaration ImportExpression MetaProperty ExportAllDeclaration ExportDefaultDeclaration TaggedTemplateExpression WithStatement
   DebuggerStatement StaticBlock`,
);

/**
 * A part of the program that jco does not write: a form, an identifier that is neither declared in it nor a known global, a property;
 * null if there is none. Scopes are not looked at: whatever is declared somewhere counts everywhere.
 */
function strangePart(program: Program): string | null {
  const declared = new Set<string>();
  const used = new Set<string>();
  const noVariables = new Set<Node>();
  for (const node of nodesOf(program)) {
    if (FORBIDDEN_FORMS.has(node.type)) return node.type;
    const { property, key, label, computed, kind, name } = node as LooseNode;
    const named = property ?? key ?? null;
    if (named !== null) {
      const text = named.type === "Literal" ? String(named.value) : computed === true ? null : (named.name ?? null);
      // A class's own `constructor(…) { … }` declares, it does not reach.
      if (text !== null && FORBIDDEN.has(text) && kind !== "constructor") return `the property ${quoted(text)}`;
      if (computed !== true) noVariables.add(named);
    }
    if (label != null) noVariables.add(label);
    for (const variable of variablesOf(node)) declared.add(variable);
    if (node.type === "Identifier" && name !== undefined && !noVariables.has(node)) used.add(name);
  }
  for (const name of used) {
    if (FORBIDDEN.has(name) || !(declared.has(name) || GLOBALS.has(name))) return `the identifier ${quoted(name)}`;
  }
  return null;
}

/** Any node, by the fields that are looked at here. */
interface LooseNode extends Node {
  readonly property?: LooseNode;
  readonly key?: LooseNode;
  readonly label?: LooseNode | null;
  readonly computed?: boolean;
  readonly kind?: string;
  readonly name?: string;
  readonly value?: LooseNode | string | number | null;
  readonly id?: LooseNode | null;
  readonly param?: LooseNode | null;
  readonly params?: readonly LooseNode[];
  readonly left?: LooseNode;
  readonly argument?: LooseNode;
  readonly properties?: readonly LooseNode[];
  readonly elements?: readonly (LooseNode | null)[];
}

const DECLARING: ReadonlySet<string> = new Set([
  ...["VariableDeclarator", "FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression"],
  ...["ClassDeclaration", "ClassExpression", "CatchClause"],
]);

/** The variables that this node declares. */
function variablesOf(node: LooseNode): string[] {
  if (!DECLARING.has(node.type)) return [];
  return [node.id, node.param, ...(node.params ?? [])].flatMap((target) => boundNames(target ?? null));
}

function boundNames(target: LooseNode | null): string[] {
  switch (target?.type) {
    case "Identifier":
      return [target.name!];
    case "ObjectPattern":
      return target.properties!.flatMap((part) =>
        boundNames(part.type === "Property" ? (part.value as LooseNode) : part.argument!),
      );
    case "ArrayPattern":
      return target.elements!.flatMap(boundNames);
    case "AssignmentPattern":
      return boundNames(target.left!);
    case "RestElement":
      return boundNames(target.argument!);
    default:
      return [];
  }
}
