// The commands that the README shows under a mark (`<!-- commands: MARK -->`), each of which must do what it is shown for: end well, without a complaint.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { nestbox } from "./command-line.ts";

export function describeReadmeCommands(mark: string): void {
  describe("the README's commands", () => {
    const readme = readFileSync("README.md", "utf8");
    const after = readme.split(`<!-- commands: ${mark} -->\n\`\`\`sh\n`)[1] ?? "";
    const commands = after
      .slice(0, Math.max(0, after.indexOf("```")))
      .trim()
      .split("\n");

    it("are there", () => expect(commands.length).toBeGreaterThan(1));
    it.each(commands)("%s", (command) => {
      const [npx, name, ...args] = command.split(" ");
      expect([npx, name]).toEqual(["npx", "nestbox"]);
      const run = nestbox(...args);
      expect(run.errors).toBe("");
      expect(run.status).toBe(0);
    });
  });
}
