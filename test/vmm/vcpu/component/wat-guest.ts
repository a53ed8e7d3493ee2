// Guests of a few instructions, written in WebAssembly text: the body of `run` (result i32), with every import of the world at hand
// under its own name and RAM as the imported memory.

import { readFileSync } from "node:fs";
import { componentEmbed, componentNew, parse } from "@bytecodealliance/jco";

const WIT = readFileSync(new URL("../../../../guest-fixtures/wit/guest.wit", import.meta.url), "utf8");

const IMPORTS: readonly (readonly [string, string, string])[] = [
  ["mmio", "load8", "(param i32 i32) (result i32)"],
  ["mmio", "load16", "(param i32 i32) (result i32)"],
  ["mmio", "load32", "(param i32 i32) (result i32)"],
  ["mmio", "load64", "(param i32 i32) (result i32)"],
  ["mmio", "high-half", "(result i32)"],
  ["mmio", "store8", "(param i32 i32 i32)"],
  ["mmio", "store16", "(param i32 i32 i32)"],
  ["mmio", "store32", "(param i32 i32 i32)"],
  ["mmio", "store64", "(param i32 i32 i32 i32)"],
  ["interrupts", "wait", "(result i32)"],
  ["interrupts", "poll", "(result i32)"],
  ["console", "write", "(param i32 i32)"],
  ["platform", "count", "(param i32) (result i32)"],
  ["platform", "base", "(param i32 i32) (result i64)"],
  ["platform", "size", "(param i32 i32) (result i64)"],
  ["platform", "iommu-line", "(param i32 i32) (result i32)"],
  ["platform", "iommu-of", "(param i32) (result i32)"],
  ["platform", "pci-line", "(param i32 i32) (result i32)"],
  ["time", "now", "(result i64)"],
  ["time", "alarm", "(param i64 i32)"],
  ["power", "exit", "(param i32)"],
];

export interface WatGuestOptions {
  /** More module fields: data, functions. */
  readonly fields?: string;
  readonly memory?: string;
  readonly wit?: string;
  readonly world?: string;
  /** Replaces the world's imports. */
  readonly imports?: string;
}

export async function watGuest(body: string, options: WatGuestOptions = {}): Promise<Uint8Array> {
  const imports =
    options.imports ??
    IMPORTS.map(
      ([space, name, type]) => `(import "nestbox:guest/${space}@0.1.0" "${name}" (func $${name} ${type}))`,
    ).join("\n");
  const memory = options.memory ?? '(import "env" "memory" (memory 1)) (export "memory" (memory 0))';
  const text = `(module ${imports} ${memory} ${options.fields ?? ""} (func $run (export "run") (result i32) ${body}))`;
  const binary = await parse(text);
  const embedded = await componentEmbed({
    binary,
    witSource: options.wit ?? WIT,
    world: options.world ?? "guest",
    stringEncoding: "utf8",
  });
  return componentNew(embedded, []);
}
