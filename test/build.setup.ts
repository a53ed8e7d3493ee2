// Before the tests: everything built that is out of date, as `npm run build` does. The tests themselves run from the sources, but the
// command line, guest images and the RV64 core are tested as they are shipped.

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

export default function setup(): void {
  const build = fileURLToPath(new URL("../vmm/cli/build.mjs", import.meta.url));
  const result = spawnSync(process.execPath, [build], { stdio: "inherit" });
  if (result.status !== 0) throw new Error("the build failed (see above)");
}
