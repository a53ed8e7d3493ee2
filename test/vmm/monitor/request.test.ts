// Requests to the monitor, as words and as JSON: what they mean, and what is said of those that mean nothing.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { COMMANDS, completionsOf, helpOf, shapeOf, usageOf } from "../../../vmm/monitor/command-shapes.ts";
import { parseRequest, RequestError, wordsOf } from "../../../vmm/monitor/request.ts";

describe("a request in words", () => {
  it.each([
    ["status", { command: "status", arguments: {} }],
    ["step", { command: "step", arguments: {} }],
    ["step 12 --event", { command: "step", arguments: { n: 12, event: true } }],
    [
      "walk --device 00:02.0 --iova=0xfff8000000001000 --pasid 3 --write --why",
      {
        command: "walk",
        arguments: { device: "00:02.0", iova: 0xfff8_0000_0000_1000n, pasid: 3, write: true, why: true },
      },
    ],
    ["inject", { command: "inject", arguments: { rule: [] } }],
    [
      "inject ioctl:IOMMU_HWPT_ALLOC@2=ENOMEM 'device:0000:00:01.0=dead'",
      { command: "inject", arguments: { rule: ["ioctl:IOMMU_HWPT_ALLOC@2=ENOMEM", "device:0000:00:01.0=dead"] } },
    ],
    [
      `device-add "0000:00:01.0@00:03.0/a b"`,
      { command: "device-add", arguments: { assignment: "0000:00:01.0@00:03.0/a b" } },
    ],
  ])("%s", (line, request) => expect(parseRequest(line)).toEqual(request));

  it.each([
    ["stepp", /there is no command "stepp" \(there are help, status/],
    ["", /there is no command/],
    ["step one", /n of step is a whole number/],
    ["step 1 2", /"2" is one too many: step \[--event\] \[n\]/],
    ["step --events", /step takes no --events/],
    ["step --event=1", /--event of step takes no value/],
    ["walk --device 00:02.0", /walk needs iova/],
    ["walk --device 00:02.0 --iova", /--iova of walk needs a value/],
    ["walk --device 00:02.0 --iova 0x1_0000", /iova of walk is an address/],
    ["walk --device 00:02.0 --iova 0x10000000000000000", /at most 64 bits/],
    ["device-add", /device-add needs assignment/],
    ["until", /until needs type/],
  ])("%j is refused", (line, message) => expect(() => parseRequest(line)).toThrow(message));
});

describe("a request in JSON", () => {
  it("has an id that comes back", () => {
    expect(parseRequest('{"id":"a","command":"step","n":3}')).toEqual({
      ...{ command: "step", arguments: { n: 3 }, id: "a" },
    });
    expect(parseRequest('{"id":7,"command":"walk","device":"00:02.0","iova":"0x1000","write":true}')).toEqual({
      ...{ command: "walk", arguments: { device: "00:02.0", iova: 0x1000n, write: true }, id: 7 },
    });
  });

  it.each([
    ["{", /no JSON/],
    ['{"command":"step","id":[]}', /id is a number or a string/],
    ['{"id":1}', /there is no command undefined/],
    ['{"command":"step","n":-1}', /n of step is a whole number/],
    ['{"command":"step","n":1.5}', /n of step is a whole number/],
    ['{"command":"step","times":1}', /step takes no "times"/],
    ['{"command":"inject","rule":"x"}', /rule of inject is a list of strings/],
    ['{"command":"walk","device":1,"iova":"0x0"}', /device of walk is a text/],
    ['{"command":"walk","device":"00:02.0","iova":"0x0","write":1}', /write of walk is true or left out/],
    ['{"command":"constructor"}', /there is no command "constructor"/],
  ])("%s is refused", (line, message) => expect(() => parseRequest(line)).toThrow(message));

  it("has none of what there may be any number of, where it is left out", () => {
    expect(parseRequest('{"command":"inject"}').arguments).toEqual({ rule: [] });
    expect(parseRequest("inject").arguments).toEqual({ rule: [] });
  });

  it("that is refused still has its id", () => {
    const refusal = (() => {
      try {
        parseRequest('{"id":5,"command":"step","n":"x"}');
      } catch (error) {
        return error;
      }
      return null;
    })();
    expect(refusal).toBeInstanceOf(RequestError);
    expect((refusal as RequestError).id).toBe(5);
  });
});

it("whatever comes is a request or a RequestError", () => {
  const piece = fc.oneof(
    fc.constantFrom(...COMMANDS.map(({ name }) => name as string)),
    fc.constantFrom(
      "--device",
      "--iova",
      "--event",
      "--",
      "-",
      '"',
      "'",
      "{",
      '{"command":',
      "0x",
      "1",
      "}",
      "__proto__",
    ),
    fc.string({ maxLength: 8 }),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 6 }), (pieces) => {
      try {
        parseRequest(pieces.join(" "));
      } catch (error) {
        expect(error).toBeInstanceOf(RequestError);
      }
    }),
    { numRuns: 2000 },
  );
});

it("words keep what quotes hold together", () => {
  expect(wordsOf(`a "b c" 'd "e' f`)).toEqual(["a", "b c", 'd "e', "f"]);
});

describe("help and completion", () => {
  it("know every command and what it takes", () => {
    expect(helpOf()).toHaveLength(COMMANDS.length);
    for (const command of COMMANDS) expect(helpOf(shapeOf(command.name))[0]).toBe(usageOf(command));
    expect(usageOf(shapeOf("walk")!)).toBe("walk --device <bdf> --iova <address> [--pasid <n>] [--write] [--why]");
  });

  it("go on from where the line is", () => {
    expect(completionsOf("dev")).toEqual({ word: "dev", candidates: ["device-add", "device-remove"] });
    expect(completionsOf("walk --w")).toEqual({ word: "--w", candidates: ["--write", "--why"] });
    expect(completionsOf("help wa")).toEqual({ word: "wa", candidates: ["walk"] });
    expect(completionsOf("nothing --")).toEqual({ word: "--", candidates: [] });
  });
});
