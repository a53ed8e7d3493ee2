// An access of one's own: a device reads or writes an IOVA here, and the story runs on behind it.

import { useState } from "preact/hooks";
import type { Recording } from "../run/recording.ts";
import type { Insert } from "../story/verbs.ts";
import { verbAt } from "./steps.ts";

interface Props {
  readonly recording: Recording;
  readonly row: number;
  readonly put: (insert: Insert) => void;
  readonly changes: number;
  readonly undo: () => void;
}

export function TryAccess({ recording, row, put, changes, undo }: Props) {
  const [iova, setIova] = useState("0x4000");
  const [problem, setProblem] = useState<string | null>(null);
  const device = recording.verbs
    .map(({ verb }) => ("device" in verb ? verb.device : null))
    .find((name) => name !== null);
  const after = recording.verbs.slice(0, verbAt(recording, row) + 1).findLast(({ own }) => own !== null)?.own;
  const tryIt = (what: "read" | "write"): void => {
    const fits = /^0x[0-9a-f]{1,16}$/i.test(iova);
    setProblem(fits ? null : "an address such as 0x4000");
    if (fits && device != null && after != null)
      put({ after, verb: { do: what, device, at: BigInt(iova.toLowerCase()) } });
  };
  return (
    <fieldset class="try">
      <legend class="hidden">Try an access here</legend>
      <label>
        try here: device {device} at{" "}
        <input value={iova} onInput={(event) => setIova(event.currentTarget.value)} size={10} spellcheck={false} />
      </label>
      <button type="button" class="small" onClick={() => tryIt("read")}>
        reads
      </button>
      <button type="button" class="small" onClick={() => tryIt("write")}>
        writes
      </button>
      {problem === null ? null : (
        <span class="problem" role="alert">
          {problem}
        </span>
      )}
      {changes === 0 ? null : (
        <button type="button" class="small" onClick={undo}>
          undo {changes === 1 ? "your change" : `your ${changes} changes`}
        </button>
      )}
    </fieldset>
  );
}
