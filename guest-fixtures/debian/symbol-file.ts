// An ELF file of nothing but names, for a debugger: a function's name at an address (gABI, "Symbol Table"), made from a kernel's own map, /proc/kallsyms.

export interface MappedSymbol {
  readonly name: string;
  readonly address: bigint;
}

const MACHINES = { riscv64: 243, arm64: 183 } as const;
const HEADER = 64;
const SECTION = 64;
const SYMBOL = 24;
const [PROGBITS_NOTHING, SYMTAB, STRTAB] = [8, 2, 3];
const GLOBAL_FUNCTION = 0x12;

/** The functions in lines of /proc/kallsyms. */
export function symbolsIn(lines: readonly string[]): MappedSymbol[] {
  const symbols: MappedSymbol[] = [];
  for (const line of lines) {
    const symbol = /^([0-9a-f]{16}) [tTwW] ([\w.$]+)(\s|$)/.exec(line);
    if (symbol !== null) symbols.push({ name: symbol[2]!, address: BigInt(`0x${symbol[1]}`) });
  }
  return symbols;
}

/** A section .text of no bytes that spans them, and the names. */
export function symbolFile(architecture: keyof typeof MACHINES, symbols: readonly MappedSymbol[]): Uint8Array {
  const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
  const names = encode(`\0${symbols.map(({ name }) => `${name}\0`).join("")}`);
  const sections = encode("\0.text\0.symtab\0.strtab\0.shstrtab\0");
  const symtabAt = HEADER;
  const symtabBytes = SYMBOL * (symbols.length + 1);
  const namesAt = symtabAt + symtabBytes;
  const sectionNamesAt = namesAt + names.length;
  const sectionsAt = Math.ceil((sectionNamesAt + sections.length) / 8) * 8;
  const file = new Uint8Array(sectionsAt + 5 * SECTION);
  const view = new DataView(file.buffer);
  file.set(encode("\x7fELF"));
  file.set([2, 1, 1], 4); // 64 bits, little-endian, version 1
  view.setUint16(16, 2, true); // ET_EXEC
  view.setUint16(18, MACHINES[architecture], true);
  view.setUint32(20, 1, true);
  view.setBigUint64(40, BigInt(sectionsAt), true);
  view.setUint16(52, HEADER, true);
  view.setUint16(58, SECTION, true);
  view.setUint16(60, 5, true);
  view.setUint16(62, 4, true);
  let name = 1;
  symbols.forEach(({ name: text, address }, n) => {
    const at = symtabAt + SYMBOL * (n + 1);
    view.setUint32(at, name, true);
    view.setUint8(at + 4, GLOBAL_FUNCTION);
    view.setUint16(at + 6, 1, true);
    view.setBigUint64(at + 8, address, true);
    name += text.length + 1;
  });
  file.set(names, namesAt);
  file.set(sections, sectionNamesAt);
  const addresses = symbols.map(({ address }) => address).sort((a, b) => (a < b ? -1 : 1));
  const first = addresses[0] ?? 0n;
  const span = (addresses.at(-1) ?? 0n) - first + 0x1000n;
  const section = (index: number, fields: readonly (number | bigint)[]): void => {
    const at = sectionsAt + SECTION * index;
    const [nameAt, type, flags, address, offset, size, link, info, align, entry] = fields;
    view.setUint32(at, Number(nameAt), true);
    view.setUint32(at + 4, Number(type), true);
    for (const [place, value] of [
      [8, flags],
      [16, address],
      [24, offset],
      [32, size],
    ] as const)
      view.setBigUint64(at + place, BigInt(value!), true);
    view.setUint32(at + 40, Number(link), true);
    view.setUint32(at + 44, Number(info), true);
    view.setBigUint64(at + 48, BigInt(align!), true);
    view.setBigUint64(at + 56, BigInt(entry!), true);
  };
  section(1, [1, PROGBITS_NOTHING, 6, first, 0, span, 0, 0, 4, 0]);
  section(2, [7, SYMTAB, 0, 0, symtabAt, symtabBytes, 3, 1, 8, SYMBOL]);
  section(3, [15, STRTAB, 0, 0, namesAt, names.length, 0, 0, 1, 0]);
  section(4, [23, STRTAB, 0, 0, sectionNamesAt, sections.length, 0, 0, 1, 0]);
  return file;
}
