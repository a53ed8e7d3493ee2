// Writes the binary format of WebAssembly components, byte by byte, with any bytes for a name: what no tool would write, a hostile image
// holds. Component model, Binary.md; core specification §5. Shares nothing with the reader in vmm/vcpu/component.

export type Bytes = readonly number[];

export function u32(value: number): Bytes {
  const bytes: number[] = [];
  let left = value;
  do {
    const low = left % 128;
    left = Math.floor(left / 128);
    bytes.push(left > 0 ? low | 0x80 : low);
  } while (left > 0);
  return bytes;
}

export const sized = (bytes: Bytes): Bytes => [...u32(bytes.length), ...bytes];
export const vec = (elements: readonly Bytes[]): Bytes => [...u32(elements.length), ...elements.flat()];
export const section = (id: number, ...elements: readonly Bytes[]): Bytes => [id, ...sized(vec(elements))];
export const custom = (name: Bytes, payload: Bytes = []): Bytes => [0, ...sized([...sized(name), ...payload])];
export const utf8 = (text: string): Bytes => [...new TextEncoder().encode(text)];

const CORE_HEADER = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
const COMPONENT_HEADER = [0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00];
export const coreModule = (...sections: readonly Bytes[]): Bytes => [...CORE_HEADER, ...sections.flat()];
export const component = (...sections: readonly Bytes[]): Bytes => [...COMPONENT_HEADER, ...sections.flat()];
export const coreModuleSection = (module: Bytes): Bytes => [1, ...sized(module)];
export const nestedComponent = (bytes: Bytes): Bytes => [4, ...sized(bytes)];

/** A name of a component's import or export. */
export const externName = (name: Bytes): Bytes => [0x00, ...sized(name)];
