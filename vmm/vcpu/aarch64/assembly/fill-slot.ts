// From code in a decode page's copies to its slots.
import { copyLine } from "../../engine/assembly/decode-cache";
import { DECODE_CODE } from "../../engine/assembly/layout";
import { decode } from "./decode";

/** Fills the slot `slot` of `page`. */
export function fillSlot(slot: usize, page: usize): void {
  const offset = <u32>(slot - page) >> 2;
  copyLine(page, offset >> 7);
  decode(slot, load<u32>(page + offset, DECODE_CODE), offset);
}
