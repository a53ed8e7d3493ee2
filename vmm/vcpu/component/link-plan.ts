// How an image's core modules are linked, as data: which module is instantiated with what, in order, and which core function is `run`.
// Read out of the code that jco generates, statement by statement, and carried out here; that code is never evaluated, so the most that
// a hostile image gets is another order, or a function of the world in the place of another.
//
//   const module0 = getCoreModule('guest.core.wasm')          a name for a core module
//   const { write } = imports['nestbox:guest/console']        a name for a function of the world
//   if (write[symbolCabiLower]) { trampoline0 = write[…](…) }   another name for it
//   ({ exports: exports0 } = instantiateCore(module0, { … }))   one instance
//   exports0Run = exports0.run                                a name for an export
//
// Statements of other kinds, and names that stand for something else, mean nothing here; a plan that needs one of them is refused.

import type { Expression, Node, Statement } from "acorn";
import { quoted } from "./name-grammar.ts";
import { WORLD_IMPORTS, WORLD_VERSION } from "./world.ts";

/** What a core module is given under a name. */
export type LinkSource =
  | { readonly kind: "world"; readonly interface: string; readonly function: string }
  | { readonly kind: "export"; readonly instance: number; readonly name: string };

interface LinkStep {
  /** Name of the core module. */
  readonly module: string;
  readonly imports: readonly { readonly module: string; readonly name: string; readonly source: LinkSource }[];
}

export interface LinkPlan {
  /** Instances in the order in which they are made. */
  readonly instances: readonly LinkStep[];
  /** The core function behind the export `run`. */
  readonly run: { readonly instance: number; readonly name: string };
}

/** What carries a plan out needs of whoever runs the guest. */
export interface LinkHost {
  worldFunction(space: string, name: string): unknown;
  instantiate(module: WebAssembly.Module, imports: WebAssembly.Imports): WebAssembly.Instance;
}

type Meaning =
  | { readonly kind: "module"; readonly name: string }
  | { readonly kind: "instance"; readonly index: number }
  | LinkSource;

class NoPlan extends Error {}

/** The plan that the statements amount to; `run` is the local name of the core function. A string says why there is none. */
export function linkPlan(statements: readonly Statement[], run: string): LinkPlan | string {
  const reader = new PlanReader();
  try {
    for (const statement of statements) reader.read(statement);
    const entry = reader.meaning(run);
    if (entry?.kind !== "export") return `cannot be linked: ${quoted(run)} is no core function`;
    return { instances: reader.instances, run: { instance: entry.instance, name: entry.name } };
  } catch (error) {
    if (error instanceof NoPlan) return `cannot be linked: ${error.message}`;
    throw error;
  }
}

/** Not state: made and dropped while an image is read. */
class PlanReader {
  readonly instances: LinkStep[] = [];
  readonly #meanings = new Map<string, Meaning>();

  meaning(name: string): Meaning | undefined {
    return this.#meanings.get(name);
  }

  #define(name: string, meaning: Meaning): void {
    if (this.#meanings.has(name)) throw new NoPlan(`${quoted(name)} stands for two things`);
    this.#meanings.set(name, meaning);
  }

  read(statement: Statement): void {
    if (statement.type === "VariableDeclaration") {
      for (const { id, init } of statement.declarations) if (init != null) this.#declaration(id, init);
    } else if (statement.type === "ExpressionStatement") {
      const { expression } = statement;
      if (expression.type === "AssignmentExpression" && expression.operator === "=") {
        this.#assignment(expression.left, expression.right);
      }
    } else if (statement.type === "IfStatement") {
      const { test, consequent } = statement;
      const only = consequent.type === "BlockStatement" && consequent.body.length === 1 ? consequent.body[0]! : null;
      if (lowered(test) !== null && only?.type === "ExpressionStatement") this.#lowering(only.expression);
    }
  }

  #declaration(target: Node, value: Expression): void {
    const name = identifier(target);
    if (name !== null) {
      const module = calledWith(value, "getCoreModule");
      const file = module?.length === 1 ? text(module[0]!) : null;
      if (file !== null) this.#define(name, { kind: "module", name: file });
      return;
    }
    const space =
      value.type === "MemberExpression" && identifier(value.object) === "imports" ? propertyOf(value) : null;
    if (space === null) return;
    for (const [key, local] of takenApart(target)) this.#define(local, worldFunction(space, key));
  }

  #assignment(target: Node, value: Expression): void {
    const given = calledWith(value, "instantiateCore");
    if (given !== null) {
      const taken = takenApart(target);
      const [key, local] = taken[0] ?? [];
      if (taken.length !== 1 || key !== "exports" || local === undefined)
        throw new NoPlan("an instance without a name");
      const step = this.#step(given);
      this.#define(local, { kind: "instance", index: this.instances.length });
      this.instances.push(step);
      return;
    }
    const name = identifier(target);
    const source = this.#source(value);
    if (name !== null && source !== null) this.#define(name, source);
  }

  /** `trampoline0 = write[symbolCabiLower](…)`: another name for what `write` stands for. */
  #lowering(expression: Expression): void {
    if (expression.type !== "AssignmentExpression" || expression.right.type !== "CallExpression") return;
    const name = identifier(expression.left);
    const from = lowered(expression.right.callee);
    const meaning = from === null ? undefined : this.meaning(from);
    if (name !== null && meaning?.kind === "world") this.#define(name, meaning);
  }

  #step([module, imports]: readonly Node[]): LinkStep {
    const meaning = this.meaning(identifier(module) ?? "");
    if (meaning?.kind !== "module") throw new NoPlan("an instance of no core module");
    const items: { module: string; name: string; source: LinkSource }[] = [];
    for (const [space, given] of imports === undefined ? [] : entriesOf(imports)) {
      for (const [name, value] of entriesOf(given)) {
        const source = this.#source(value);
        if (source === null) throw new NoPlan(`what stands for ${quoted(name)} of ${quoted(space)} is not known`);
        items.push({ module: space, name, source });
      }
    }
    return { module: meaning.name, imports: items };
  }

  /** A value that a core module may be given: a function of the world, an export of an instance, `Object.assign` of one with marks. */
  #source(value: Node): LinkSource | null {
    const expression = value as Expression;
    if (expression.type === "Identifier") {
      const meaning = this.meaning(expression.name);
      return meaning?.kind === "world" || meaning?.kind === "export" ? meaning : null;
    }
    if (expression.type === "MemberExpression") {
      const of = this.meaning(identifier(expression.object) ?? "");
      const name = propertyOf(expression);
      return of?.kind === "instance" && name !== null ? { kind: "export", instance: of.index, name } : null;
    }
    if (expression.type !== "CallExpression" || expression.callee.type !== "MemberExpression") return null;
    const { callee } = expression;
    if (identifier(callee.object) !== "Object" || propertyOf(callee) !== "assign") return null;
    return expression.arguments.length === 2 ? this.#source(expression.arguments[0]!) : null;
  }
}

/** jco leaves out the version of an interface and writes names in lower camel case. */
const WORLD_BY_JCO_NAME: ReadonlyMap<string, ReadonlyMap<string, LinkSource>> = new Map(
  Object.entries(WORLD_IMPORTS).map(([space, functions]) => [
    space.slice(0, -WORLD_VERSION.length),
    new Map(
      Object.keys(functions).map((name) => [
        name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase()),
        { kind: "world", interface: space, function: name },
      ]),
    ),
  ]),
);

function worldFunction(space: string, name: string): LinkSource {
  const source = WORLD_BY_JCO_NAME.get(space)?.get(name);
  if (source === undefined) throw new NoPlan(`${quoted(name)} of ${quoted(space)} is no function of the world`);
  return source;
}

const identifier = (node: Node | undefined): string | null =>
  node?.type === "Identifier" ? (node as Node & { name: string }).name : null;

function text(node: Node | undefined): string | null {
  const { type, value } = (node ?? {}) as { type?: string; value?: unknown };
  return type === "Literal" && typeof value === "string" ? value : null;
}

/** The arguments of `name(…)`; null for anything else. */
function calledWith(expression: Expression, name: string): readonly Node[] | null {
  return expression.type === "CallExpression" && identifier(expression.callee) === name ? expression.arguments : null;
}

/** The property of `a.b` or `a['b']`. */
function propertyOf({ computed, property }: { computed: boolean; property: Node }): string | null {
  return computed ? text(property) : identifier(property);
}

/** x of `x[symbolCabiLower]`. */
function lowered(node: Node): string | null {
  const { type, computed, property, object } = node as Node & { computed: boolean; property: Node; object: Node };
  if (type !== "MemberExpression" || !computed || identifier(property) !== "symbolCabiLower") return null;
  return identifier(object);
}

/** Keys and local names of `{ a, b: c }`. */
function takenApart(target: Node): (readonly [string, string])[] {
  if (target.type !== "ObjectPattern") return [];
  const { properties } = target as Node & { properties: readonly Node[] };
  return properties.map((property) => {
    const { computed, key, value } = property as Node & { computed: boolean; key: Node; value: Node };
    const [name, local] = [identifier(key), identifier(value)];
    if (computed || name === null || local === null)
      throw new NoPlan("something is taken apart in a way that is not known");
    return [name, local];
  });
}

/** Keys and values of an object literal without computed keys, accessors or spreads. */
function entriesOf(node: Node): (readonly [string, Node])[] {
  if (node.type !== "ObjectExpression") throw new NoPlan("a core module is given something that is no list of names");
  const { properties } = node as Node & { properties: readonly Node[] };
  return properties.map((property) => {
    const { type, computed, kind, key, value } = property as Node & {
      computed: boolean;
      kind: string;
      key: Node;
      value: Node;
    };
    const name = identifier(key) ?? text(key);
    if (type !== "Property" || computed || kind !== "init" || name === null) {
      throw new NoPlan("a core module is given something without a plain name");
    }
    return [name, value];
  });
}

/** Instantiates what the plan says, in order; the core function that is `run`. Throws what the engine throws. */
export function carryOut(
  plan: LinkPlan,
  modules: ReadonlyMap<string, WebAssembly.Module>,
  host: LinkHost,
): () => unknown {
  const made: WebAssembly.Instance[] = [];
  // An instance's `exports` has no prototype: there is nothing to be found but exports.
  const exported = (instance: number, name: string) => made[instance]!.exports[name];
  for (const { module, imports } of plan.instances) {
    const compiled = modules.get(module);
    if (compiled === undefined) throw new WebAssembly.LinkError(`no core module ${quoted(module)}`);
    const given: Record<string, Record<string, unknown>> = Object.create(null);
    for (const { module: space, name, source } of imports) {
      given[space] ??= Object.create(null) as Record<string, unknown>;
      given[space][name] =
        source.kind === "world"
          ? host.worldFunction(source.interface, source.function)
          : exported(source.instance, source.name);
    }
    for (const { module: space } of WebAssembly.Module.imports(compiled)) {
      if (given[space] === undefined) throw new WebAssembly.LinkError(`nothing is linked to ${quoted(space)}`);
    }
    made.push(host.instantiate(compiled, given as WebAssembly.Imports));
  }
  const run = exported(plan.run.instance, plan.run.name);
  if (typeof run !== "function") throw new WebAssembly.LinkError("run is no function");
  return run as () => unknown;
}
