// A guest image with a slot for every place where a name may stand. With the names it should have it is a sound guest: `run` writes two
// bytes to the console and returns 0. A name that two places must agree on (an export and the alias of it) is one slot, so that a hostile
// name there reaches the transpiler in a valid component.

import {
  type Bytes,
  component,
  coreModule,
  coreModuleSection,
  custom,
  externName,
  nestedComponent,
  section,
  sized,
  u32,
  utf8,
  vec,
} from "./component-encoder.ts";

/** Slots of names that every image has, with the name a sound guest has there. */
const ALWAYS = {
  "core export, lifted": "run",
  "core export of memory": "memory",
  "core import, module": "nestbox:guest/console@0.1.0",
  "core import, field": "write",
  "core import of memory, module": "env",
  "interface, imported": "nestbox:guest/console@0.1.0",
  "function of an interface": "write",
  "parameter of a function": "bytes",
  "component export": "run",
} as const;

/** Slots of things that an image has only if a name is asked for there. */
export const OPTIONAL = [
  "core export, unused",
  "core import, start module",
  "custom section of a core module",
  "module name of a name section",
  "function name of a name section",
  "local name of a name section",
  "custom section of the component",
  "component-name section",
  "producers section, field",
  "producers section, value",
  "type of an interface",
  "record field",
  "variant case",
  "enum case",
  "flag",
  "field of a parameter's record",
  "case of a parameter's enum",
  "flag of a parameter's flags",
  "case of a parameter's variant",
  "second interface, imported",
  "function, imported",
  "type, imported",
  "instance, exported",
  "function, exported",
  "parameter of an exported function",
  "field of an exported function's record",
  "case of an exported function's result enum",
  "nested component, import",
  "nested component, export",
  "nested component, core export",
] as const;

export type Position = keyof typeof ALWAYS | (typeof OPTIONAL)[number];
export const POSITIONS: readonly Position[] = [...(Object.keys(ALWAYS) as (keyof typeof ALWAYS)[]), ...OPTIONAL];

/** What a sound guest has in the slots that every image has. */
export const DEFAULT_NAMES: Partial<Readonly<Record<Position, string>>> = ALWAYS;

export type Names = Partial<Readonly<Record<Position, Bytes>>>;

const STRING = 0x73;
const U32 = 0x79;
const U8 = 0x7d;
/** () -> i32, (i32 i32) -> () and (i32) -> i32. */
const CORE_TYPES = section(1, [0x60, 0, 1, 0x7f], [0x60, 2, 0x7f, 0x7f, 0], [0x60, 1, 0x7f, 1, 0x7f]);
const RESULT = 0x00;
const NO_RESULT = [0x01, 0x00];

export function image(names: Names): Uint8Array {
  const { sections } = new ImageWriter(names);
  return Uint8Array.from(component(...sections));
}

/** Writes the sections in order, and counts the index spaces that slots add to. */
class ImageWriter {
  readonly sections: Bytes[] = [];
  readonly #names: Names;
  #types = 0;
  #instances = 0;
  #functions = 0;

  constructor(names: Names) {
    this.#names = names;
    this.#coreModules();
    const parameter = this.#parameterType();
    this.#unusedTypes();
    const console = this.#type(this.#consoleInterface(parameter));
    this.#imports(console);
    this.#coreLinks();
    this.#exports();
    this.#otherComponents();
    this.#customSections();
  }

  #of(slot: keyof typeof ALWAYS): Bytes {
    return this.#names[slot] ?? utf8(ALWAYS[slot]);
  }

  #optional(slot: (typeof OPTIONAL)[number]): Bytes | undefined {
    return this.#names[slot];
  }

  /** Adds a type; its index. */
  #type(definition: Bytes): number {
    this.sections.push(section(7, definition));
    return this.#types++;
  }

  #coreModules(): void {
    const memory = sized(this.#of("core export of memory"));
    this.sections.push(coreModuleSection(coreModule(section(5, [0x00, 1]), section(7, [...memory, 2, 0]))));
    const unused = this.#optional("core export, unused");
    const run = sized(this.#of("core export, lifted"));
    // write(16, 2); return 0, and a function that returns its parameter
    const body = [0, 0x41, 16, 0x41, 2, 0x10, 0, 0x41, 0, 0x0b];
    const taker = [0, 0x20, 0, 0x0b];
    this.sections.push(
      coreModuleSection(
        coreModule(
          CORE_TYPES,
          section(
            2,
            [...sized(this.#of("core import, module")), ...sized(this.#of("core import, field")), 0, 1],
            [...sized(this.#of("core import of memory, module")), ...memory, 2, 0x00, 1],
          ),
          section(3, [0], [2]),
          section(
            7,
            [...run, 0, 1],
            [...sized(utf8("take")), 0, 2],
            ...(unused === undefined ? [] : [[...sized(unused), 0, 1]]),
          ),
          section(10, sized(body), sized(taker)),
          ...this.#coreCustomSections(),
        ),
      ),
    );
  }

  #coreCustomSections(): Bytes[] {
    const sections: Bytes[] = [];
    const other = this.#optional("custom section of a core module");
    if (other !== undefined) sections.push(custom(other, utf8("payload")));
    const subsections: Bytes[] = [];
    const module = this.#optional("module name of a name section");
    if (module !== undefined) subsections.push([0, ...sized(sized(module))]);
    const name = this.#optional("function name of a name section");
    if (name !== undefined) subsections.push([1, ...sized(vec([[1, ...sized(name)]]))]);
    const local = this.#optional("local name of a name section");
    if (local !== undefined) subsections.push([2, ...sized(vec([[1, ...vec([[0, ...sized(local)]])]]))]);
    if (subsections.length > 0) sections.push(custom(utf8("name"), subsections.flat()));
    return sections;
  }

  /** A named type for the parameter of `write`, if a slot asks for one. Its index. */
  #parameterType(): number | null {
    const field = this.#optional("field of a parameter's record");
    if (field !== undefined) return this.#type([0x72, ...vec([[...sized(field), STRING]])]);
    const flag = this.#optional("flag of a parameter's flags");
    if (flag !== undefined) return this.#type([0x6e, ...vec([sized(flag)])]);
    const enumCase = this.#optional("case of a parameter's enum");
    if (enumCase !== undefined) return this.#type([0x6d, ...vec([sized(enumCase)])]);
    const variantCase = this.#optional("case of a parameter's variant");
    if (variantCase !== undefined) return this.#type([0x71, ...vec([[...sized(variantCase), 1, U32, 0]])]);
    return null;
  }

  #unusedTypes(): void {
    const field = this.#optional("record field");
    if (field !== undefined) this.#type([0x72, ...vec([[...sized(field), U32]])]);
    const variantCase = this.#optional("variant case");
    if (variantCase !== undefined) this.#type([0x71, ...vec([[...sized(variantCase), 0, 0]])]);
    const enumCase = this.#optional("enum case");
    if (enumCase !== undefined) this.#type([0x6d, ...vec([sized(enumCase)])]);
    const flag = this.#optional("flag");
    if (flag !== undefined) this.#type([0x6e, ...vec([sized(flag)])]);
  }

  /** An instance type with one function; its parameter is the component's type `parameter`, or list<u8>. */
  #consoleInterface(parameter: number | null): Bytes {
    const declarations: Bytes[] = [parameter === null ? [1, 0x70, U8] : [2, 3, 2, ...u32(1), ...u32(parameter)]];
    const named = this.#optional("type of an interface");
    // A type that a name is needed for: (export "kind" (type (eq 0))).
    const local = parameterIsNamed(this.#names) || named !== undefined ? 1 : 0;
    if (local === 1) declarations.push([4, ...externName(named ?? utf8("kind")), 3, 0, 0]);
    const parameters: Bytes[] = [[...sized(this.#of("parameter of a function")), local]];
    // Enums and flags are one core parameter, and the guest passes two.
    const single = this.#names["case of a parameter's enum"] ?? this.#names["flag of a parameter's flags"];
    if (single !== undefined) parameters.push([...sized(utf8("more")), U32]);
    declarations.push([1, 0x40, ...vec(parameters), ...NO_RESULT]);
    declarations.push([4, ...externName(this.#of("function of an interface")), 1, ...u32(local + 1)]);
    return [0x42, ...vec(declarations)];
  }

  #imports(console: number): void {
    this.sections.push(section(10, [...externName(this.#of("interface, imported")), 5, ...u32(console)]));
    this.#instances++;
    const second = this.#optional("second interface, imported");
    if (second !== undefined) {
      const empty = this.#type([0x42, 0]);
      this.sections.push(section(10, [...externName(second), 5, ...u32(empty)]));
      this.#instances++;
    }
    const type = this.#optional("type, imported");
    if (type !== undefined) {
      const base = this.#type([0x6d, ...vec([sized(utf8("one"))])]);
      this.sections.push(section(10, [...externName(type), 3, 0, ...u32(base)]));
      this.#types++;
    }
    const imported = this.#optional("function, imported");
    if (imported !== undefined) {
      const nullary = this.#type([0x40, 0, RESULT, U32]);
      this.sections.push(section(10, [...externName(imported), 1, ...u32(nullary)]));
      this.#functions++;
    }
  }

  /** Core instances: 0 memory; 1 the world's function; 2 the guest. */
  #coreLinks(): void {
    const memory = sized(this.#of("core export of memory"));
    this.sections.push(section(2, [0, 0, 0]));
    // core memory 0, for the lowering
    this.sections.push(section(6, [0, 2, 1, 0, ...memory]));
    this.sections.push(section(6, [1, 0, 0, ...sized(this.#of("function of an interface"))]));
    const lowered = this.#functions++;
    this.sections.push(section(8, [1, 0, ...u32(lowered), ...vec([[3, 0], [0]])]));
    this.sections.push(section(2, [1, ...vec([[...sized(this.#of("core import, field")), 0, 0]])]));
    const links = [
      [...sized(this.#of("core import of memory, module")), 0x12, 0],
      [...sized(this.#of("core import, module")), 0x12, 1],
    ];
    this.sections.push(section(2, [0, 1, ...vec(links)]));
    const start = this.#optional("core import, start module");
    if (start !== undefined) {
      // A module that imports the guest's function and has nothing to call it for.
      const run = this.#of("core export, lifted");
      this.sections.push(
        coreModuleSection(coreModule(CORE_TYPES, section(2, [...sized(start), ...sized(run), 0, 0]))),
        section(2, [0, 2, ...vec([[...sized(start), 0x12, 2]])]),
      );
    }
  }

  #exports(): void {
    this.sections.push(section(6, [0, 0, 1, 2, ...sized(this.#of("core export, lifted"))]));
    const run = this.#type([0x40, 0, RESULT, U32]);
    this.sections.push(section(8, [0, 0, 1, 0, ...u32(run)]));
    const lifted = this.#functions++;
    this.sections.push(section(11, [...externName(this.#of("component export")), 1, ...u32(lifted), 0]));
    this.#functions++;
    const instance = this.#optional("instance, exported");
    if (instance !== undefined) {
      this.sections.push(section(5, [1, ...vec([[...externName(utf8("inner")), 1, ...u32(lifted)]])]));
      this.sections.push(section(11, [...externName(instance), 5, ...u32(this.#instances), 0]));
      this.#instances += 2;
    }
    this.#furtherExport();
  }

  /** A second exported function, whose name or types a slot asks for. */
  #furtherExport(): void {
    const name = this.#optional("function, exported");
    const parameter = this.#optional("parameter of an exported function");
    const field = this.#optional("field of an exported function's record");
    const enumCase = this.#optional("case of an exported function's result enum");
    const [slot] = [name, parameter, field, enumCase].filter((given) => given !== undefined);
    if (slot === undefined) return;
    let result = U32;
    if (field !== undefined || enumCase !== undefined) {
      const definition =
        field === undefined ? [0x6d, ...vec([sized(enumCase!)])] : [0x72, ...vec([[...sized(field), U32]])];
      const inner = this.#type(definition);
      // A world's own types are imports.
      this.sections.push(section(10, [...externName(utf8("kind")), 3, 0, ...u32(inner)]));
      result = this.#types++;
    }
    const parameters = parameter === undefined ? [] : [[...sized(parameter), U32]];
    const type = this.#type([0x40, ...vec(parameters), RESULT, ...u32(result)]);
    this.sections.push(section(6, [0, 0, 1, 2, ...sized(utf8("take"))]));
    // Core functions: 0 lowered, 1 run, 2 take.
    this.sections.push(section(8, [0, 0, parameter === undefined ? 1 : 2, 0, ...u32(type)]));
    this.sections.push(section(11, [...externName(name ?? utf8("further")), 1, ...u32(this.#functions), 0]));
    this.#functions += 2;
  }

  #otherComponents(): void {
    const imported = this.#optional("nested component, import");
    if (imported !== undefined) {
      const nullary = section(7, [0x40, 0, RESULT, U32]);
      this.sections.push(nestedComponent(component(nullary, section(10, [...externName(imported), 1, 0]))));
    }
    const exported = this.#optional("nested component, export");
    if (exported !== undefined) {
      const type = section(7, [0x79]);
      this.sections.push(nestedComponent(component(type, section(11, [...externName(exported), 3, 0, 0]))));
    }
    const core = this.#optional("nested component, core export");
    if (core !== undefined) {
      const module = coreModule(section(5, [0x00, 1]), section(7, [...sized(core), 2, 0]));
      this.sections.push(nestedComponent(component(coreModuleSection(module), section(2, [0, 0, 0]))));
      // An instance of it, so that its core module is part of the program.
      this.sections.push(section(5, [0, 0, 0]));
    }
  }

  #customSections(): void {
    const other = this.#optional("custom section of the component");
    if (other !== undefined) this.sections.push(custom(other, utf8("payload")));
    const name = this.#optional("component-name section");
    if (name !== undefined) this.sections.push(custom(utf8("component-name"), [0, ...sized(sized(name))]));
    const field = this.#optional("producers section, field");
    const value = this.#optional("producers section, value");
    if (field === undefined && value === undefined) return;
    const fields = [
      [...sized(field ?? utf8("language")), ...vec([[...sized(value ?? utf8("C")), ...sized(value ?? utf8("1"))]])],
    ];
    this.sections.push(custom(utf8("producers"), vec(fields)));
  }
}

/** The type of the parameter of `write` has names of its own, so it must be named itself. */
function parameterIsNamed(names: Names): boolean {
  return Object.keys(names).some((slot) => slot.includes("of a parameter's"));
}
