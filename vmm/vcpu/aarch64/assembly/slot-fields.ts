// A slot's fields (opcodes.ts) as the interpreter's loop reads and writes them: inlined.
import {
  flagsOfDifference, flagsOfDifferenceWord, flagsOfLogic, flagsOfLogicWord, flagsOfSum, flagsOfSumWord, flagsWithCarry, flagsWithCarryWord,
} from "./arithmetic";
import { NZCV, X } from "./layout";

/** The register in field n. */
@inline
export function a(ip: usize): u64 {
  return load<u64>(load<u16>(ip, 4), X);
}

/** The register in field m. */
@inline
export function b(ip: usize): u64 {
  return load<u64>(load<u16>(ip, 6), X);
}

@inline
export function d(ip: usize): u64 {
  return load<u64>(load<u16>(ip, 2), X);
}

@inline
export function third(ip: usize): u64 {
  return load<u64>(load<u32>(ip, 8), X);
}

@inline
export function immediate(ip: usize): u64 {
  return load<u64>(ip, 8);
}

@inline
export function how(ip: usize): u32 {
  return load<u32>(ip, 8);
}

@inline
export function shift(ip: usize): u64 {
  return <u64>load<u16>(ip, 6);
}

@inline
export function distance(ip: usize): u32 {
  return load<u32>(ip, 8);
}

/** Of pairs and of accesses that write the base: where the access is, from the base. */
@inline
export function accessOffset(ip: usize): u64 {
  return <u64>(<i64>load<i32>(ip, 8));
}

/** And what the base grows by. */
@inline
export function growth(ip: usize): u64 {
  return <u64>(<i64>load<i32>(ip, 12));
}

@inline
export function set(ip: usize, value: u64): void {
  store<u64>(load<u16>(ip, 2), value, X);
}

@inline
export function setBase(ip: usize, value: u64): void {
  store<u64>(load<u16>(ip, 4), value, X);
}

@inline
export function setLink(value: u64): void {
  store<u64>(X + 30 * 8, value);
}

@inline
export function carry(): u64 {
  return <u64>((load<u32>(NZCV) >> 1) & 1);
}

@inline
export function holds(ip: usize): bool {
  return <bool>((load<u16>(ip, 8) >> load<u32>(NZCV)) & 1);
}

@inline
export function otherwise(ip: usize): u32 {
  return <u32>load<u8>(ip, 10);
}

@inline
export function setSum(ip: usize, x: u64, y: u64): void {
  store<u32>(NZCV, flagsOfSum(x, y));
  set(ip, x + y);
}

@inline
export function setSumWord(ip: usize, x: u32, y: u32): void {
  store<u32>(NZCV, flagsOfSumWord(x, y));
  set(ip, <u64>(x + y));
}

@inline
export function setDifference(ip: usize, x: u64, y: u64): void {
  store<u32>(NZCV, flagsOfDifference(x, y));
  set(ip, x - y);
}

@inline
export function setDifferenceWord(ip: usize, x: u32, y: u32): void {
  store<u32>(NZCV, flagsOfDifferenceWord(x, y));
  set(ip, <u64>(x - y));
}

@inline
export function setLogic(ip: usize, r: u64): void {
  store<u32>(NZCV, flagsOfLogic(r));
  set(ip, r);
}

@inline
export function setLogicWord(ip: usize, r: u32): void {
  store<u32>(NZCV, flagsOfLogicWord(r));
  set(ip, <u64>r);
}

@inline
export function setWithCarry(ip: usize, x: u64, y: u64, c: u64): void {
  store<u32>(NZCV, flagsWithCarry(x, y, c));
  set(ip, x + y + c);
}

@inline
export function setWithCarryWord(ip: usize, x: u32, y: u32, c: u32): void {
  store<u32>(NZCV, flagsWithCarryWord(x, y, c));
  set(ip, <u64>(x + y + c));
}
