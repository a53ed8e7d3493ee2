// The outside of a WebAssembly component: what it imports and exports, with types, and every name it holds (component model,
// Binary.md: preamble; sections 0 custom, 1 core module, 2 core instance, 4 component, 5 instance, 6 alias, 7 type, 8 canon, 10 import,
// 11 export).
//
// The file is hostile: what is not understood is refused, not stepped over, and a type's text is clipped so that types made of types
// cannot grow without bound. What a component of our world has no use for (components within it, resources, asynchronous functions) is
// noted as a fault and read on, so that a component of another world can be told by its imports.

import { BinaryReader, Damaged } from "./binary-reader.ts";
import { visitCoreNames } from "./core-names.ts";
import { faultOfName, type NameKind, quoted } from "./name-grammar.ts";

export type ImageKind = "component" | "core-module" | "not-wasm";

/** An import or export of a component: a function with its signature, or an instance with its functions. */
export interface ExternalItem {
  readonly name: string;
  readonly sort: "func" | "instance" | "type" | "other";
  /** Functions by name (instances), or the item itself under "" (functions). */
  readonly functions: ReadonlyMap<string, string>;
}

export interface ComponentOutline {
  readonly imports: readonly ExternalItem[];
  readonly exports: readonly ExternalItem[];
  /** The first name or construct that no guest image may have; null: none. */
  readonly fault: string | null;
  /** Where the file is damaged, and the rest of the outline was read up to; null: nowhere. */
  readonly damage: string | null;
}

/** What kind of file this is, by its first eight bytes (version field, then layer: 0 core, 1 component). */
export function imageKind(bytes: Uint8Array): ImageKind {
  const magic = bytes[0] === 0x00 && bytes[1] === 0x61 && bytes[2] === 0x73 && bytes[3] === 0x6d;
  if (!magic || bytes.length < 8) return "not-wasm";
  const layer = bytes[6]! | (bytes[7]! << 8);
  return layer === 0 ? "core-module" : "component";
}

/** Reads a component's outline. */
export function readOutline(bytes: Uint8Array): ComponentOutline {
  const reader = new ComponentReader(bytes);
  let damage: string | null = null;
  try {
    reader.readComponent();
  } catch (error) {
    if (!(error instanceof Damaged)) throw error;
    damage = error.message;
  }
  return { imports: reader.imports, exports: reader.exports, fault: reader.fault, damage };
}

type TypeEntry = { readonly text: string; readonly functions?: ReadonlyMap<string, string> };

const UNKNOWN: TypeEntry = { text: "?" };
const NO_FUNCTIONS: ReadonlyMap<string, string> = new Map();
const PRIMITIVES: Readonly<Record<number, string>> = {
  127: "bool",
  126: "s8",
  125: "u8",
  124: "s16",
  123: "u16",
  122: "s32",
  121: "u32",
  120: "s64",
  119: "u64",
  118: "f32",
  117: "f64",
  116: "char",
  115: "string",
  100: "error-context",
};
/** own, borrow, stream, future, list of fixed length. */
const OUT_OF_PLACE: ReadonlySet<number> = new Set([0x69, 0x68, 0x66, 0x65, 0x67]);
const LONGEST_TEXT = 400;
/** Interfaces within interfaces; a component has one or two. */
const DEEPEST = 50;

/** Parts of a type's text; past a few dozen it is too long to be one of ours. Not state: made and dropped while an image is read. */
class Parts {
  readonly #parts: string[] = [];
  push(part: string): void {
    if (this.#parts.length < LONGEST_TEXT) this.#parts.push(part);
  }
  join(): string {
    return this.#parts.join(", ");
  }
}

const clip = (text: string): string => (text.length > LONGEST_TEXT ? "?" : text);

/** Not state: made and dropped while an image is read. */
class ComponentReader {
  readonly imports: ExternalItem[] = [];
  readonly exports: ExternalItem[] = [];
  fault: string | null = null;
  readonly #reader: BinaryReader;
  #depth = 0;
  #modules = 0;
  /** Index spaces of the component: types and functions. */
  readonly #types: TypeEntry[] = [];
  readonly #functions: string[] = [];

  constructor(bytes: Uint8Array) {
    this.#reader = new BinaryReader(bytes);
  }

  readComponent(): void {
    const reader = this.#reader;
    for (const expected of [0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00]) {
      if (reader.byte() !== expected) throw new Damaged("a version of the component format that is not known");
    }
    reader.sections((id) => this.#section(id));
  }

  #section(id: number): void {
    const reader = this.#reader;
    switch (id) {
      case 0:
        reader.at = reader.end;
        break;
      case 1:
        this.#coreModule();
        break;
      case 2:
        reader.each(() => this.#coreInstance());
        break;
      case 4:
        this.#fault("is made of several components; link them to one core module and make an image of that");
        reader.at = reader.end;
        break;
      case 5:
        reader.each(() => this.#instance());
        break;
      case 6:
        reader.each(() => this.#componentAlias());
        break;
      case 7:
        reader.each(() => void this.#types.push(this.#defType(this.#types)));
        break;
      case 8:
        reader.each(() => this.#canon());
        break;
      case 10:
        reader.each(() => this.#import());
        break;
      case 11:
        reader.each(() => this.#export());
        break;
      default:
        throw new Damaged(`section ${id} is not one that component guests use`);
    }
  }

  #fault(message: string): void {
    this.fault ??= message;
  }

  #coreModule(): void {
    const module = this.#modules++;
    visitCoreNames(this.#reader, (name, role) => this.#check(name, "core", `core module ${module} ${role}`));
  }

  /** Instantiation of a core module with instances by name, or a bundle of items by name. */
  #coreInstance(): void {
    const reader = this.#reader;
    const form = reader.byte();
    if (form > 1) throw new Damaged(`a core instance of form ${form} is not one that component guests use`);
    if (form === 0) reader.u32();
    reader.each(() => {
      this.#name("core", form === 0 ? "a core module is given" : "a core instance holds");
      const sort = reader.byte();
      if (form === 0 && sort !== 0x12) throw new Damaged(`a core module is given a thing of sort ${sort}`);
      reader.u32();
    });
  }

  #instance(): void {
    const reader = this.#reader;
    if (reader.byte() !== 1) throw new Damaged("a component within the component is instantiated");
    reader.each(() => {
      this.#externName("an instance holds");
      if (reader.byte() === 0) reader.byte();
      reader.u32();
    });
  }

  #import(): void {
    const name = this.#externName("imports");
    const item = this.#externDesc(name, this.#types);
    this.imports.push(item);
    if (item.sort === "func") this.#functions.push(item.functions.get("") ?? "?");
    if (item.sort === "type") this.#types.push(UNKNOWN);
  }

  #export(): void {
    const name = this.#externName("exports");
    const sort = this.#reader.byte();
    if (sort === 0) this.#reader.byte();
    const index = this.#reader.u32();
    let item: ExternalItem;
    if (sort === 1) item = { name, sort: "func", functions: new Map([["", this.#functions[index] ?? "?"]]) };
    else item = { name, sort: sort === 5 ? "instance" : sort === 3 ? "type" : "other", functions: NO_FUNCTIONS };
    if (this.#flag()) item = this.#externDesc(name, this.#types);
    this.exports.push(item);
    if (sort === 1) this.#functions.push(item.functions.get("") ?? "?");
    if (sort === 3) this.#types.push(this.#types[index] ?? UNKNOWN);
  }

  /** canonopt* and the functions that canon definitions make; only lift (0) makes a component function. */
  #canon(): void {
    const reader = this.#reader;
    const kind = reader.byte();
    if (kind > 1) throw new Damaged(`canonical definition ${kind} is not one that component guests use`);
    if (reader.byte() !== 0) throw new Damaged("a canonical definition of a form that is not known");
    reader.u32();
    reader.each(() => {
      const option = reader.byte();
      if (option > 5) throw new Damaged(`canonical option ${option} is not one that component guests use`);
      // memory, realloc, post-return
      if (option >= 3) reader.u32();
    });
    if (kind === 0) this.#functions.push(this.#types[reader.u32()]?.text ?? "?");
  }

  #componentAlias(): void {
    const sort = this.#aliasBody();
    if (sort === 1) this.#functions.push("?");
    if (sort === 3) this.#types.push(UNKNOWN);
  }

  /** Reads an alias; returns its sort (1 function, 3 type; -1 core). */
  #aliasBody(): number {
    const sort = this.#reader.byte();
    if (sort === 0) this.#reader.byte();
    const target = this.#reader.byte();
    this.#reader.u32();
    if (target > 2) throw new Damaged(`an alias of form ${target} is not one that component guests use`);
    if (target === 2) this.#reader.u32();
    else this.#name(target === 1 ? "core" : "plain", "an alias names");
    return sort === 0 ? -1 : sort;
  }

  #externDesc(name: string, types: readonly TypeEntry[]): ExternalItem {
    const kind = this.#reader.byte();
    if (kind === 0) {
      this.#reader.byte();
      this.#reader.u32();
      return { name, sort: "other", functions: NO_FUNCTIONS };
    }
    if (kind === 1) return { name, sort: "func", functions: new Map([["", types[this.#reader.u32()]?.text ?? "?"]]) };
    if (kind === 3) {
      if (!this.#flag()) this.#reader.u32();
      return { name, sort: "type", functions: NO_FUNCTIONS };
    }
    if (kind !== 4 && kind !== 5) throw new Damaged(`an import or export of kind ${kind}`);
    const functions = types[this.#reader.u32()]?.functions ?? NO_FUNCTIONS;
    return { name, sort: kind === 5 ? "instance" : "other", functions };
  }

  #defType(types: readonly TypeEntry[]): TypeEntry {
    const form = this.#reader.byte();
    if (form === 0x40) return { text: this.#funcType(types) };
    if (form === 0x43) {
      this.#fault("uses asynchronous functions, which a guest's world does not have");
      return { text: `async ${this.#funcType(types)}` };
    }
    if (form === 0x42) return this.#instanceType();
    return { text: clip(this.#definedValueType(form, types)) };
  }

  #funcType(types: readonly TypeEntry[]): string {
    const parameters = new Parts();
    this.#reader.each(() => {
      this.#name("label", "a function's parameter is");
      parameters.push(this.#valType(types));
    });
    const text = `func(${parameters.join()})`;
    if (this.#flag()) {
      if (this.#reader.byte() !== 0) throw new Damaged("a function with named results");
      return clip(text);
    }
    return clip(`${text} -> ${this.#valType(types)}`);
  }

  #instanceType(): TypeEntry {
    if (++this.#depth > DEEPEST) throw new Damaged("interfaces are nested too deep");
    const types: TypeEntry[] = [];
    const functions = new Map<string, string>();
    this.#reader.each(() => {
      const declaration = this.#reader.byte();
      if (declaration === 1) {
        types.push(this.#defType(types));
      } else if (declaration === 2) {
        if (this.#aliasBody() === 3) types.push(UNKNOWN);
      } else if (declaration === 4) {
        const name = this.#externName("an interface holds");
        const start = this.#reader.at;
        const item = this.#externDesc(name, types);
        if (item.sort === "func") functions.set(name, item.functions.get("") ?? "?");
        // (type (eq n)) names type n again, at a new index.
        if (item.sort === "type") types.push(this.#equalType(start, types));
      } else {
        throw new Damaged(`declaration ${declaration} in an interface is not one that component guests use`);
      }
    });
    this.#depth--;
    return { text: "instance", functions };
  }

  #equalType(start: number, types: readonly TypeEntry[]): TypeEntry {
    const end = this.#reader.at;
    this.#reader.at = start + 1;
    const equal = this.#reader.byte() === 0 ? (types[this.#reader.u32()] ?? UNKNOWN) : { text: "resource" };
    this.#reader.at = end;
    return equal;
  }

  #valType(types: readonly TypeEntry[]): string {
    const reader = this.#reader;
    const first = reader.bytes[reader.at] ?? 0;
    if (first >= 0x40 && first < 0x80) return PRIMITIVES[reader.byte()] ?? "?";
    return types[this.#reader.u32()]?.text ?? "?";
  }

  #definedValueType(form: number, types: readonly TypeEntry[]): string {
    const value = () => this.#valType(types);
    const optional = () => (this.#flag() ? this.#valType(types) : "_");
    if (OUT_OF_PLACE.has(form))
      this.#fault("uses resources, streams or lists of fixed length, which a guest's world does not have");
    const label = (what: string) => this.#name("label", `a type's ${what} is`);
    const labels = new Parts();
    switch (form) {
      case 0x72:
        this.#reader.each(() => labels.push(`${label("field")}: ${value()}`));
        return `record { ${labels.join()} }`;
      case 0x71:
        this.#reader.each(() => {
          labels.push(`${label("case")}(${optional()})`);
          if (this.#reader.byte() !== 0) throw new Damaged("a variant of a form that is not known");
        });
        return `variant { ${labels.join()} }`;
      case 0x70:
        return `list<${value()}>`;
      case 0x67:
        return `list<${value()}, ${this.#reader.u32()}>`;
      case 0x6f:
        this.#reader.each(() => labels.push(value()));
        return `tuple<${labels.join()}>`;
      case 0x6e:
      case 0x6d:
        this.#reader.each(() => labels.push(label(form === 0x6e ? "flag" : "case")));
        return `${form === 0x6e ? "flags" : "enum"} { ${labels.join()} }`;
      case 0x6b:
        return `option<${value()}>`;
      case 0x6a:
        return `result<${optional()}, ${optional()}>`;
      case 0x69:
      case 0x68:
        this.#reader.u32();
        return form === 0x69 ? "own" : "borrow";
      case 0x66:
      case 0x65:
        return `${form === 0x66 ? "stream" : "future"}<${optional()}>`;
      default: {
        const primitive = PRIMITIVES[form];
        if (primitive === undefined) throw new Damaged(`type form ${form} is not one that component guests use`);
        return primitive;
      }
    }
  }

  /** Something follows (1), or not (0). */
  #flag(): boolean {
    const byte = this.#reader.byte();
    if (byte > 1) throw new Damaged(`${byte} where 0 or 1 must stand`);
    return byte === 1;
  }

  #externName(role: string): string {
    const form = this.#reader.byte();
    if (form > 1) throw new Damaged(`name form ${form} is not one that component guests use`);
    return this.#name("plain", role);
  }

  #name(kind: NameKind, role: string): string {
    const name = this.#reader.name();
    this.#check(name, kind, role);
    return name;
  }

  #check(name: string, kind: NameKind, role: string): void {
    const fault = faultOfName(name, kind);
    if (fault !== null) this.#fault(`${role} ${quoted(name)}: ${fault}`);
  }
}
