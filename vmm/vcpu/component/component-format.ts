// The outside of a WebAssembly component: what it imports and exports, with types. Reads the binary format of the component model
// (Binary.md: preamble; sections 6 alias, 7 type, 8 canon, 10 import, 11 export), as far as a check against a world needs. Core
// modules and nested components are stepped over: the engine and the transpiler look at those.
//
// The file is hostile: every length is checked against the bytes that are there, and a type's text is clipped so that types made of
// types cannot grow without bound. What cannot be read has the signature "?", which fits no world.

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
}

/** What kind of file this is, by its first eight bytes (version field, then layer: 0 core, 1 component). */
export function imageKind(bytes: Uint8Array): ImageKind {
  const magic = bytes[0] === 0x00 && bytes[1] === 0x61 && bytes[2] === 0x73 && bytes[3] === 0x6d;
  if (!magic || bytes.length < 8) return "not-wasm";
  const layer = bytes[6]! | (bytes[7]! << 8);
  return layer === 0 ? "core-module" : "component";
}

/** Reads a component's outline; a string says where the file is damaged. */
export function readOutline(bytes: Uint8Array): ComponentOutline | string {
  const reader = new ComponentReader(bytes);
  try {
    reader.readSections();
  } catch (error) {
    if (error instanceof Damaged) return error.message;
    throw error;
  }
  return { imports: reader.imports, exports: reader.exports };
}

class Damaged extends Error {}

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
const LONGEST_TEXT = 400;
/** Interfaces within interfaces; a component has one or two. */
const DEEPEST = 50;

/** Parts of a type's text; past a few dozen it is too long to be one of ours. */
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

class ComponentReader {
  readonly imports: ExternalItem[] = [];
  readonly exports: ExternalItem[] = [];
  readonly #bytes: Uint8Array;
  #at = 8;
  #end: number;
  #depth = 0;
  /** Index spaces of the component: types and functions. */
  readonly #types: TypeEntry[] = [];
  readonly #functions: string[] = [];

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#end = bytes.length;
  }

  readSections(): void {
    while (this.#at < this.#bytes.length) {
      const id = this.#byte();
      const size = this.#u32();
      const end = this.#at + size;
      if (end > this.#bytes.length) throw new Damaged(`section ${id} runs past the end of the file`);
      this.#end = end;
      if (id === 6) this.#each(() => this.#componentAlias());
      else if (id === 7) this.#each(() => void this.#types.push(this.#defType(this.#types)));
      else if (id === 8) this.#each(() => this.#canon());
      else if (id === 10) this.#each(() => this.#import());
      else if (id === 11) this.#each(() => this.#export());
      this.#at = end;
      this.#end = this.#bytes.length;
    }
  }

  #import(): void {
    const name = this.#externName();
    const item = this.#externDesc(name, this.#types);
    this.imports.push(item);
    if (item.sort === "func") this.#functions.push(item.functions.get("") ?? "?");
    if (item.sort === "type") this.#types.push(UNKNOWN);
  }

  #export(): void {
    const name = this.#externName();
    const sort = this.#byte();
    if (sort === 0) this.#byte();
    const index = this.#u32();
    let item: ExternalItem;
    if (sort === 1) item = { name, sort: "func", functions: new Map([["", this.#functions[index] ?? "?"]]) };
    else item = { name, sort: sort === 5 ? "instance" : sort === 3 ? "type" : "other", functions: NO_FUNCTIONS };
    if (this.#byte() === 1) item = this.#externDesc(name, this.#types);
    this.exports.push(item);
    if (sort === 1) this.#functions.push(item.functions.get("") ?? "?");
    if (sort === 3) this.#types.push(this.#types[index] ?? UNKNOWN);
  }

  /** canonopt* and the functions that canon definitions make; only lift (0) makes a component function. */
  #canon(): void {
    const kind = this.#byte();
    if (kind > 1) throw new Damaged(`canonical definition ${kind} is not one that component guests use`);
    this.#byte();
    this.#u32();
    this.#each(() => {
      const option = this.#byte();
      if (option >= 3 && option !== 6) this.#u32();
    });
    if (kind === 0) this.#functions.push(this.#types[this.#u32()]?.text ?? "?");
  }

  #componentAlias(): void {
    const sort = this.#aliasBody();
    if (sort === 1) this.#functions.push("?");
    if (sort === 3) this.#types.push(UNKNOWN);
  }

  /** Reads an alias; returns its sort (1 function, 3 type; -1 core). */
  #aliasBody(): number {
    const sort = this.#byte();
    if (sort === 0) this.#byte();
    const target = this.#byte();
    this.#u32();
    if (target === 2) this.#u32();
    else this.#name();
    return sort === 0 ? -1 : sort;
  }

  #externDesc(name: string, types: readonly TypeEntry[]): ExternalItem {
    const kind = this.#byte();
    if (kind === 0) {
      this.#byte();
      this.#u32();
      return { name, sort: "other", functions: NO_FUNCTIONS };
    }
    if (kind === 1) return { name, sort: "func", functions: new Map([["", types[this.#u32()]?.text ?? "?"]]) };
    if (kind === 2) {
      if (this.#byte() === 0) this.#u32();
      else this.#valType(types);
      return { name, sort: "other", functions: NO_FUNCTIONS };
    }
    if (kind === 3) {
      if (this.#byte() === 0) this.#u32();
      return { name, sort: "type", functions: NO_FUNCTIONS };
    }
    const functions = types[this.#u32()]?.functions ?? NO_FUNCTIONS;
    return { name, sort: kind === 5 ? "instance" : "other", functions };
  }

  #defType(types: readonly TypeEntry[]): TypeEntry {
    const form = this.#byte();
    if (form === 0x40) return { text: this.#funcType(types) };
    if (form === 0x43) return { text: `async ${this.#funcType(types)}` };
    if (form === 0x42) return this.#instanceType();
    return { text: clip(this.#definedValueType(form, types)) };
  }

  #funcType(types: readonly TypeEntry[]): string {
    const parameters = new Parts();
    this.#each(() => {
      this.#name();
      parameters.push(this.#valType(types));
    });
    const text = `func(${parameters.join()})`;
    if (this.#byte() === 0) return clip(`${text} -> ${this.#valType(types)}`);
    this.#byte();
    return clip(text);
  }

  #instanceType(): TypeEntry {
    if (++this.#depth > DEEPEST) throw new Damaged("interfaces are nested too deep");
    const types: TypeEntry[] = [];
    const functions = new Map<string, string>();
    this.#each(() => {
      const declaration = this.#byte();
      if (declaration === 1) {
        types.push(this.#defType(types));
      } else if (declaration === 2) {
        if (this.#aliasBody() === 3) types.push(UNKNOWN);
      } else if (declaration === 4) {
        const name = this.#externName();
        const start = this.#at;
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
    const end = this.#at;
    this.#at = start + 1;
    const equal = this.#byte() === 0 ? (types[this.#u32()] ?? UNKNOWN) : { text: "resource" };
    this.#at = end;
    return equal;
  }

  #valType(types: readonly TypeEntry[]): string {
    const first = this.#bytes[this.#at] ?? 0;
    if (first >= 0x40 && first < 0x80) {
      this.#byte();
      return PRIMITIVES[first] ?? "?";
    }
    return types[this.#u32()]?.text ?? "?";
  }

  #definedValueType(form: number, types: readonly TypeEntry[]): string {
    const value = () => this.#valType(types);
    const optional = () => (this.#byte() === 1 ? this.#valType(types) : "_");
    const labels = new Parts();
    switch (form) {
      case 0x72:
        this.#each(() => labels.push(`${this.#name()}: ${value()}`));
        return `record { ${labels.join()} }`;
      case 0x71:
        this.#each(() => {
          labels.push(`${this.#name()}(${optional()})`);
          this.#byte();
        });
        return `variant { ${labels.join()} }`;
      case 0x70:
        return `list<${value()}>`;
      case 0x67:
        return `list<${value()}, ${this.#u32()}>`;
      case 0x6f:
        this.#each(() => labels.push(value()));
        return `tuple<${labels.join()}>`;
      case 0x6e:
      case 0x6d:
        this.#each(() => labels.push(this.#name()));
        return `${form === 0x6e ? "flags" : "enum"} { ${labels.join()} }`;
      case 0x6b:
        return `option<${value()}>`;
      case 0x6a:
        return `result<${optional()}, ${optional()}>`;
      case 0x69:
      case 0x68:
        this.#u32();
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

  #externName(): string {
    const form = this.#byte();
    if (form > 1) throw new Damaged(`name form ${form} is not one that component guests use`);
    return this.#name();
  }

  #name(): string {
    const length = this.#u32();
    if (this.#at + length > this.#end) throw new Damaged("a name runs past its section");
    const text = new TextDecoder().decode(this.#bytes.subarray(this.#at, this.#at + length));
    this.#at += length;
    return text;
  }

  #each(element: () => void): void {
    for (let left = this.#u32(); left > 0; left--) element();
  }

  #byte(): number {
    if (this.#at >= this.#end) throw new Damaged("a section ends too early");
    return this.#bytes[this.#at++]!;
  }

  /** LEB128, at most five bytes. */
  #u32(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new Damaged("a number is longer than five bytes");
  }
}
