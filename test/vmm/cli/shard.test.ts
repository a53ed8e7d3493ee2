// Which part of a campaign a process is: said outright, or taken from what an engine puts into the environment.

import { describe, expect, it } from "vitest";
import { parseShard } from "../../../vmm/cli/shard.ts";

describe("--shard", () => {
  it.each<[string, NodeJS.ProcessEnv, number, number]>([
    ["2/4", {}, 2, 4],
    ["1/1", {}, 1, 1],
    // Kubernetes counts from 0 and tells no count (Job, completionMode: Indexed).
    ["auto/4", { JOB_COMPLETION_INDEX: "0" }, 1, 4],
    ["auto/4", { JOB_COMPLETION_INDEX: "3" }, 4, 4],
    // GitLab's `parallel` counts from 1; CircleCI and Buildkite from 0.
    ["auto", { CI_NODE_INDEX: "4", CI_NODE_TOTAL: "4" }, 4, 4],
    ["auto", { CIRCLE_NODE_INDEX: "0", CIRCLE_NODE_TOTAL: "2" }, 1, 2],
    ["auto", { BUILDKITE_PARALLEL_JOB: "1", BUILDKITE_PARALLEL_JOB_COUNT: "2" }, 2, 2],
    ["auto/2", { CIRCLE_NODE_INDEX: "1", CIRCLE_NODE_TOTAL: "2" }, 2, 2],
  ])("%s with %j is part %i of %i", (text, environment, index, count) => {
    expect(parseShard(text, environment)).toEqual({ index, count });
  });

  it.each<[string, NodeJS.ProcessEnv, string]>([
    ["0/4", {}, "parts are 1 to n"],
    ["5/4", {}, "parts are 1 to n"],
    ["1/0", {}, "parts are 1 to n"],
    ["4", {}, "i/n"],
    ["a/b", {}, "i/n"],
    ["-1/4", {}, "i/n"],
    ["1/4/2", {}, "i/n"],
    ["auto", {}, "JOB_COMPLETION_INDEX"],
    ["auto/4", {}, "JOB_COMPLETION_INDEX"],
    ["auto", { JOB_COMPLETION_INDEX: "2" }, "auto/n"],
    // `completions` says more than the command line.
    ["auto/4", { JOB_COMPLETION_INDEX: "4" }, "part 5 of 4"],
    ["auto/4", { JOB_COMPLETION_INDEX: "-1" }, 'JOB_COMPLETION_INDEX is "-1"'],
    ["auto/4", { JOB_COMPLETION_INDEX: "" }, 'JOB_COMPLETION_INDEX is ""'],
    ["auto/4", { CI_NODE_INDEX: "1", CI_NODE_TOTAL: "5" }, "CI_NODE_TOTAL is 5"],
    ["auto", { CI_NODE_INDEX: "0", CI_NODE_TOTAL: "5" }, "parts are 1 to n"],
  ])("%s with %j is refused", (text, environment, words) => {
    expect(() => parseShard(text, environment)).toThrow(words);
  });
});
