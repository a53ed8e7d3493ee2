// `nestbox make-image INPUT OUTPUT`: a guest image from source or from a core module, as guest-fixtures makes its own.

import { existsSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { Command } from "commander";
import { packageFile } from "../../../host/adapters/package-root.ts";
import { EXIT_MISSING, UsageError } from "../exit-codes.ts";

/** Shipped as it is. */
const MAKER = packageFile("guest-fixtures/make-image.mjs");

export function makeImageCommand(): Command {
  return new Command("make-image")
    .description("make a component guest image (guest-fixtures/README.md)")
    .argument(
      "<input>",
      "AssemblyScript (.ts), WebAssembly text (.wat) or a core module (.wasm), of clang's for example",
    )
    .argument("<output>", "the image to write (.wasm)")
    .action(async (input: string, output: string) => {
      if (!existsSync(input)) throw new UsageError(`make-image ${input}: no such file`);
      const { makeImage, MissingCompiler } = (await import(
        pathToFileURL(MAKER).href
      )) as typeof import("../../../guest-fixtures/make-image.mjs");
      try {
        await makeImage(input, output);
      } catch (error) {
        const message = `make-image ${input}: ${error instanceof Error ? error.message : String(error)}`;
        throw error instanceof MissingCompiler ? new UsageError(message, EXIT_MISSING) : new UsageError(message);
      }
    });
}
