// The three layers between a name in an image and code that runs (vmm/vcpu/component/prepare.ts), each of which can be left out here
// and only here. Leaving out the last one means to do what nestbox never does: to evaluate what jco generated, in this very realm.

import type { Node, Statement } from "acorn";
import type { GeneratedCode } from "../../../vmm/vcpu/component/generated-code.ts";
import type { LinkHost } from "../../../vmm/vcpu/component/link-plan.ts";
import {
  type CoreModules,
  type ImageRefusal,
  LAYERS,
  type LinkComponent,
  linkable,
  type PreparedComponent,
  type TranspiledComponent,
} from "../../../vmm/vcpu/component/prepare.ts";

export type LayerName = "image" | "code" | "link";

/** Every set of layers that leaves something standing, all of them first. */
export const STANDING: readonly (readonly LayerName[])[] = [
  ["image", "code", "link"],
  ["code", "link"],
  ["image", "link"],
  ["image", "code"],
  ["link"],
  ["code"],
  ["image"],
];

/** What jco made, through those of the second and third layer that stand. */
export function linkableThrough(
  standing: readonly LayerName[],
  transpiled: TranspiledComponent,
): PreparedComponent | ImageRefusal {
  if (!standing.includes("code") && !standing.includes("link")) {
    return { modules: transpiled.modules, link: evaluatedWhole(transpiled) };
  }
  return linkable(
    {
      code: standing.includes("code") ? LAYERS.code : ({ statements }) => statements,
      link: standing.includes("link")
        ? LAYERS.link
        : (statements, code, modules) => evaluatedParts(statements, code, modules, transpiled.source),
    },
    transpiled,
  );
}

type Instantiate = (
  getCoreModule: (name: string) => WebAssembly.Module | undefined,
  imports: unknown,
  instantiateCore: LinkHost["instantiate"],
) => { readonly run: () => unknown };

/** As nestbox did before it had these layers. */
function evaluatedWhole({ source, modules }: TranspiledComponent): LinkComponent {
  return (host) => {
    const script = `${source.replace(/^export /gm, "")}\nreturn instantiate;`;
    const instantiate = (new Function(script) as () => Instantiate)();
    return run(instantiate, modules, host);
  };
}

/** Evaluates nothing but the statements that link. */
function evaluatedParts(
  statements: readonly Statement[],
  code: GeneratedCode,
  modules: CoreModules,
  source: string,
): LinkComponent {
  const assigned = new Set<string>([code.run]);
  for (const statement of statements) for (const name of assignedIn(statement)) assigned.add(name);
  const script = [
    `const symbolCabiLower = Symbol.for("cabiLower");`,
    `let ${[...assigned].join(", ")};`,
    ...statements.map(({ start, end }) => source.slice(start, end)),
    `return { run: () => ${code.run}() };`,
  ].join("\n");
  return (host) =>
    run(new Function("getCoreModule", "imports", "instantiateCore", script) as Instantiate, modules, host);
}

function run(instantiate: Instantiate, modules: CoreModules, host: LinkHost): () => unknown {
  const linked = instantiate(
    (name) => modules.get(name),
    worldOf(host),
    (module, imports = {}) => host.instantiate(module, imports),
  );
  return () => linked.run();
}

/** Names that a statement assigns to without declaring them. */
function assignedIn(statement: Statement): string[] {
  const names: string[] = [];
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    const { type, left } = value as {
      type?: string;
      left?: Node & { name?: string; properties?: { value?: { name?: string } }[] };
    };
    if (type === "AssignmentExpression" && left !== undefined) {
      const targets = left.type === "Identifier" ? [left] : (left.properties ?? []).map((property) => property.value);
      for (const target of targets) if (target?.name !== undefined) names.push(target.name);
    }
    for (const child of Object.values(value)) visit(child);
  };
  visit(statement);
  return names;
}

/** jco's view of the world's functions, and of any other: each import there is, so that hostile code is not stopped by a missing one. */
function worldOf(host: LinkHost): unknown {
  const anything = (of: (key: string) => unknown) =>
    new Proxy({}, { get: (_, key) => (typeof key === "string" ? of(key) : undefined), has: () => true });
  return anything((space) =>
    anything((name) => {
      const kebab = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      const known = host.worldFunction(`${space}@0.1.0`, kebab);
      const raw = typeof known === "function" ? (known as () => unknown) : () => 0;
      return Object.assign((...given: []) => raw(...given), { [Symbol.for("cabiLower")]: () => raw });
    }),
  );
}
