// `nestbox ui`: the walk theatre on loopback. Everything it does, it does in the browser: what is served are files.

import { existsSync } from "node:fs";
import { Command } from "commander";
import { packageFile } from "../../../host/adapters/package-root.ts";
import { UsageError } from "../exit-codes.ts";
import { wholeNumber } from "../options.ts";
import { findScenarioFiles } from "../scenario-files.ts";
import { scenariosForPage } from "../ui-scenarios.ts";
import { UiServer } from "../ui-server.ts";

const PAGE = packageFile("dist/ui");
const PORT = 8642;

export function ui(): Command {
  return new Command("ui")
    .description(
      "watch nested translations step by step in a browser; serves the page on loopback until it is interrupted",
    )
    .argument("[scenarios...]", "scenario files that the page is to offer, too")
    .option("--port <n>", `port; 0 takes any that is free (default: ${PORT}, or any that is free)`, wholeNumber)
    .action(async (paths: string[], options: { readonly port?: number }) => {
      if (!existsSync(`${PAGE}/index.html`)) throw new UsageError("the page is not built; run: npm run build");
      if (options.port !== undefined && options.port > 65535) throw new UsageError("--port takes a number up to 65535");
      const extra = paths.length === 0 ? [] : await scenariosForPage(findScenarioFiles(paths));
      const server = new UiServer(PAGE, extra);
      const port = await server.listen(options.port ?? PORT, options.port === undefined);
      console.log(`http://127.0.0.1:${port}/  (Ctrl+C ends it)`);
      await new Promise<void>((ended) => {
        for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => ended());
      });
      server.close();
    });
}
