// What changes about an object is in the machine's document (host/base/state.ts): the rules that make it impossible to forget a field,
// read from the source text.
//
//   1. A class with a field that changes implements Stateful. A field changes if it is not readonly, or if it is and holds a collection, a
//      typed array or a buffer that the class makes itself, or an object literal with a number, a truth value or a null in it.
//   2. Each such field of a Stateful class is read by saveState and written by restoreState (themselves, or what they call of the class), or
//      is named by stateParts. A Stateful object that the class makes is named by one of the three.
//   3. Nothing passes a function to `schedule`: a queue of functions cannot be written down.
//
// A comment `not state: reason`, above a class or field or behind the field, excepts it; `not state, to the blank line: reason` all fields from
// there to the next blank line. Error classes are excepted, and `high`, the second half of what a register read returns (host/base/mmio.ts).

import { dirname, join } from "node:path/posix";
import { parseSync } from "@swc/core";

export interface SourceText {
  /** From the project's root: "host/base/clock.ts". */
  readonly path: string;
  readonly text: string;
}

interface Node {
  readonly type: string;
  readonly span?: { readonly start: number; readonly end: number };
  readonly [name: string]: unknown;
}

interface ParsedFile {
  readonly path: string;
  readonly lines: readonly string[];
  readonly lineOf: (node: Node) => number;
  readonly module: Node;
  /** Local name → what it is called in which file of the project. */
  readonly imports: ReadonlyMap<string, { readonly path: string; readonly name: string }>;
  readonly classes: ReadonlyMap<string, Node>;
  readonly interfaces: ReadonlyMap<string, Node>;
}

/** Every violation, "host/devices/edu/edu.ts:33: …", in the order of the files. */
export function stateFaults(sources: readonly SourceText[]): string[] {
  const project = new Project(sources.map(parseFile));
  return project.files.flatMap((file) => [
    ...[...file.classes].flatMap(([name, node]) => classFaults(project, file, name, node)),
    ...scheduleFaults(file),
  ]);
}

class Project {
  readonly files: readonly ParsedFile[];
  readonly #byPath: ReadonlyMap<string, ParsedFile>;

  constructor(files: readonly ParsedFile[]) {
    this.files = files;
    this.#byPath = new Map(files.map((file) => [file.path, file]));
  }

  isStateful(file: ParsedFile, name: string, depth = 0): boolean {
    if (name === "Stateful") return true;
    if (depth > 10) return false;
    const imported = file.imports.get(name);
    if (imported !== undefined) {
      const other = this.#byPath.get(imported.path);
      return imported.name === "Stateful" || (other !== undefined && this.isStateful(other, imported.name, depth + 1));
    }
    const above = [
      ...heritage(file.classes.get(name)?.implements),
      ...heritage(file.interfaces.get(name)?.extends),
      ...heritage([file.classes.get(name)?.superClass]),
    ];
    return above.some((each) => this.isStateful(file, each, depth + 1));
  }
}

function heritage(list: unknown): string[] {
  if (!Array.isArray(list)) return [];
  return list.flatMap((entry) => {
    if (!isNode(entry)) return [];
    const name = isNode(entry.expression) ? entry.expression : entry;
    return name.type === "Identifier" ? [name.value as string] : [];
  });
}

function parseFile({ path, text }: SourceText): ParsedFile {
  const module = parseSync(text, { syntax: "typescript", target: "es2022" }) as unknown as Node;
  const bytes = Buffer.from(text);
  const starts = [0];
  for (let i = 0; i < bytes.length; i++) if (bytes[i] === 10) starts.push(i + 1);
  const lineOf = (node: Node): number => {
    // Spans count bytes from one.
    const at = node.span!.start - 1;
    let line = 0;
    while (line + 1 < starts.length && starts[line + 1]! <= at) line++;
    return line;
  };
  const imports = new Map<string, { path: string; name: string }>();
  const classes = new Map<string, Node>();
  const interfaces = new Map<string, Node>();
  for (const node of nodesOf(module)) {
    if (node.type === "ImportDeclaration") {
      const from = (node.source as Node).value as string;
      if (!from.startsWith(".")) continue;
      for (const specifier of node.specifiers as Node[]) {
        const local = (specifier.local as Node).value as string;
        const name = isNode(specifier.imported) ? (specifier.imported.value as string) : local;
        imports.set(local, { path: join(dirname(path), from), name });
      }
    } else if (node.type === "ClassDeclaration" || (node.type === "ClassExpression" && isNode(node.identifier))) {
      classes.set((node.identifier as Node).value as string, node);
    } else if (node.type === "ClassExpression") {
      classes.set(`(class at line ${lineOf(node) + 1})`, node);
    } else if (node.type === "TsInterfaceDeclaration") {
      interfaces.set((node.id as Node).value as string, node);
    }
  }
  return { path, lines: text.split("\n"), lineOf, module, imports, classes, interfaces };
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && typeof (value as { type?: unknown }).type === "string";
}

/** A node and all below it. */
function* nodesOf(value: unknown): Generator<Node> {
  if (Array.isArray(value)) {
    for (const inner of value) yield* nodesOf(inner);
  } else if (typeof value === "object" && value !== null) {
    if (isNode(value)) yield value;
    for (const inner of Object.values(value)) if (typeof inner === "object") yield* nodesOf(inner);
  }
}

/** A comment `not state: reason` on this line or in the comment that ends above it, or one that reaches down to this line. */
function isExcepted(file: ParsedFile, line: number): boolean {
  const marked = /not state: *\w/i;
  const text = file.lines[line]!;
  const comment = text.indexOf("//");
  if (comment >= 0 && marked.test(text.slice(comment))) return true;
  let adjacent = true;
  for (let above = line - 1; above >= 0 && file.lines[above]!.trim() !== ""; above--) {
    const isComment = /^\s*(\/\/|\/\*|\*)/.test(file.lines[above]!);
    adjacent &&= isComment;
    if (adjacent && marked.test(file.lines[above]!)) return true;
    if (isComment && /not state, to the blank line: *\w/i.test(file.lines[above]!)) return true;
  }
  return false;
}

interface Field {
  readonly name: string;
  readonly node: Node;
  /** What it is first set to: by the declaration, or by the constructor. */
  readonly values: readonly Node[];
}

const isField = (member: Node): boolean => member.type === "ClassProperty" || member.type === "PrivateProperty";

function memberName(member: Node): string {
  const key = member.key as Node | undefined;
  return key === undefined ? "" : `${key.type === "PrivateName" ? "#" : ""}${String(key.value)}`;
}

function fieldsOf(node: Node): Field[] {
  const members = node.body as Node[];
  const builder = members.find((member) => member.type === "Constructor");
  return members
    .filter(
      (member) => isField(member) && member.isStatic !== true && member.declare !== true && member.isAbstract !== true,
    )
    .map((member) => {
      const name = memberName(member);
      const values = isNode(member.value) ? [member.value] : [];
      for (const inner of nodesOf(builder?.body)) {
        if (inner.type === "AssignmentExpression" && ownName(inner.left as Node) === name)
          values.push(inner.right as Node);
      }
      return { name, node: member, values };
    });
}

/** "#x" of `this.#x`; "" of anything else. */
function ownName(node: Node): string {
  if (node.type !== "MemberExpression" || (node.object as Node).type !== "ThisExpression") return "";
  const property = node.property as Node;
  return property.type === "PrivateName"
    ? `#${property.value}`
    : property.type === "Identifier"
      ? `${property.value}`
      : "";
}

const COLLECTION =
  /^(Weak)?(Map|Set)$|^Array$|^(Shared)?ArrayBuffer$|^DataView$|^(Big)?(Ui|I)nt\d+(Clamped)?Array$|^Float\d+Array$/;

function changes(field: Field): boolean {
  if (field.node.readonly !== true) return true;
  const annotation = (field.node.typeAnnotation as Node | null)?.typeAnnotation as Node | undefined;
  if (annotation?.type === "TsTypeOperator" && annotation.op === "readonly") return false;
  if (annotation?.type === "TsTypeReference" && /^Readonly/.test(String((annotation.typeName as Node).value)))
    return false;
  return field.values.some(isChanging);
}

function isChanging(value: Node): boolean {
  if (value.type === "NewExpression") return COLLECTION.test(String((value.callee as Node).value));
  if (value.type === "ArrayExpression") return true;
  if (value.type === "TsAsExpression") return isChanging(value.expression as Node);
  if (value.type === "CallExpression") {
    // Array.from, Uint8Array.of; and a list made by map, fill and the like of one of those.
    const callee = value.callee as Node;
    const object = callee.type === "MemberExpression" ? (callee.object as Node) : callee;
    return object.type === "Identifier" ? COLLECTION.test(String(object.value)) : isChanging(object);
  }
  if (value.type !== "ObjectExpression") return false;
  return (value.properties as Node[]).some((property) => {
    const inner = property.value as Node | undefined;
    return (
      memberName(property) !== "high" &&
      isNode(inner) &&
      (/^(Numeric|Boolean|Null)Literal$/.test(inner.type) || isChanging(inner))
    );
  });
}

/** Names of the class's own members that a method mentions, and those that the methods mention which it calls. */
function mentions(node: Node, method: string): Set<string> {
  const members = new Map((node.body as Node[]).filter((member) => !isField(member)).map((m) => [memberName(m), m]));
  const found = new Set<string>();
  const follow = (name: string): void => {
    for (const inner of nodesOf(members.get(name))) {
      const mentioned = ownName(inner);
      if (mentioned === "" || found.has(mentioned)) continue;
      found.add(mentioned);
      if (members.has(mentioned)) follow(mentioned);
    }
  };
  follow(method);
  return found;
}

function classFaults(project: Project, file: ParsedFile, name: string, node: Node): string[] {
  const line = file.lineOf(node);
  const isError = heritage([node.superClass]).some((above) => above.endsWith("Error"));
  if (isError || isExcepted(file, line)) return [];
  const at = (line: number): string => `${file.path}:${line + 1}:`;
  const fields = fieldsOf(node).filter((field) => field.name !== "high" && !isExcepted(file, file.lineOf(field.node)));
  const changing = fields.filter(changes);
  const parts = fields.filter((field) =>
    field.values.some(
      (value) => value.type === "NewExpression" && project.isStateful(file, String((value.callee as Node).value)),
    ),
  );
  const concerned = [...new Set([...changing, ...parts])];
  if (concerned.length === 0) return [];
  if (!project.isStateful(file, name)) {
    return [
      `${at(line)} ${name} has fields that change and is not Stateful: ${concerned.map((f) => f.name).join(", ")}`,
    ];
  }
  const saved = mentions(node, "saveState");
  const restored = mentions(node, "restoreState");
  const named = mentions(node, "stateParts");
  return concerned.flatMap((field) => {
    const faults: string[] = [];
    const isPart = parts.includes(field) && (saved.has(field.name) || restored.has(field.name));
    if (isPart || named.has(field.name)) return faults;
    if (!saved.has(field.name)) faults.push("saveState");
    if (!restored.has(field.name)) faults.push("restoreState");
    if (faults.length === 0) return [];
    return [`${at(file.lineOf(field.node))} ${name}: ${field.name} changes and is not in ${faults.join(" and ")}`];
  });
}

const FUNCTION = /^(ArrowFunctionExpression|FunctionExpression)$/;

function scheduleFaults(file: ParsedFile): string[] {
  const faults: string[] = [];
  const functions = new Set<string>();
  for (const node of file.classes.values()) {
    for (const member of node.body as Node[]) {
      if (!isField(member) || (isNode(member.value) && FUNCTION.test(member.value.type)))
        functions.add(memberName(member));
    }
  }
  for (const node of nodesOf(file.module)) {
    if (node.type !== "CallExpression") continue;
    const callee = node.callee as Node;
    if (callee.type !== "MemberExpression" || (callee.property as Node).type !== "Identifier") continue;
    if ((callee.property as Node).value !== "schedule") continue;
    const what = (node.arguments as { expression: Node }[])[1]?.expression;
    if (what !== undefined && isFunction(file, what, functions)) {
      faults.push(
        `${file.path}:${file.lineOf(node) + 1}: schedule is given a function: a queue that holds one cannot be saved`,
      );
    }
  }
  return faults;
}

function isFunction(file: ParsedFile, what: Node, functions: ReadonlySet<string>): boolean {
  if (FUNCTION.test(what.type)) return true;
  if (what.type === "MemberExpression") return functions.has(ownName(what));
  if (what.type !== "Identifier") return false;
  // A local name is no function if it is declared to be an event.
  for (const node of nodesOf(file.module)) {
    if (node.type !== "Identifier" || node.value !== what.value || !isNode(node.typeAnnotation)) continue;
    const annotation = node.typeAnnotation.typeAnnotation as Node;
    if (annotation.type === "TsTypeReference" && (annotation.typeName as Node).value === "ClockEvent") return false;
  }
  return true;
}
