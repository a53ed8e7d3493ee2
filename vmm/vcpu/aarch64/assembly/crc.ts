// CRC32 and CRC32C (DDI 0487, C6.2.87): bit-reflected, no inversion of value or result.
import { CONTINUE } from "../../engine/assembly/isa";
import { UNDEFINED } from "./faults";
import { FEATURES, FEATURE_CRC32, X } from "./layout";
import { source, target } from "./slot";

export function executeCrc(code: u32): u32 {
  const scale = (code >> 10) & 3;
  if (!(load<u32>(FEATURES) & FEATURE_CRC32) || code >> 31 != (scale == 3 ? 1 : 0)) return UNDEFINED;
  const polynomial: u32 = (code >> 12) & 1 ? 0x82f63b78 : 0xedb88320;
  let crc = <u32>load<u64>(X + source(code >> 5));
  let data = load<u64>(X + source(code >> 16));
  for (let byte: u32 = 0; byte < 1 << scale; byte++) {
    crc ^= <u32>data & 0xff;
    data >>= 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? polynomial : 0);
  }
  store<u64>(X + target(code), <u64>crc);
  return CONTINUE;
}
