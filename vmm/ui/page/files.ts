// Files from outside, and files for outside. What a file is, its first bytes say: a WebAssembly binary is a guest image, anything else a trace.

import { LONGEST_TRACE } from "../../view/trace-index.ts";
import type { ViommuKindName } from "../../viommu/kinds.ts";
import type { Recording } from "../run/recording.ts";
import type { Questions } from "./questions.ts";

/** Bytes of an image. */
const LARGEST_IMAGE = 64 * 2 ** 20;

export type OpenedFile = { readonly recording: Recording } | { readonly problem: string };

export async function openFile(
  questions: Questions,
  file: File,
  kind: ViommuKindName,
  say: (text: string) => void,
): Promise<OpenedFile> {
  if (file.size > LONGEST_TRACE) return { problem: "longer than 4 GiB" };
  let bytes: Uint8Array;
  try {
    bytes = new Uint8Array(await file.arrayBuffer());
  } catch {
    return { problem: "the browser could not read it (is it a folder, or larger than its memory?)" };
  }
  const isImage = bytes[0] === 0 && bytes[1] === 0x61 && bytes[2] === 0x73 && bytes[3] === 0x6d;
  if (isImage && bytes.length > LARGEST_IMAGE) return { problem: "an image has at most 64 MiB" };
  if (isImage) say(`Transpiling and running ${file.name}…`);
  const answer = isImage
    ? await questions.ask({ ask: "run", run: { what: "image", name: file.name, bytes, kind } })
    : await questions.ask(
        { ask: "trace", title: file.name, bytes },
        (part) => say(`Reading ${file.name}: ${Math.round(part * 100)} %`),
        [bytes.buffer as ArrayBuffer],
      );
  if ("recording" in answer) {
    return answer.recording.columns.rows === 0 ? { problem: "it holds no event" } : { recording: answer.recording };
  }
  return { problem: "problem" in answer ? answer.problem : "nothing came of it" };
}

/** Hands the person a file. */
export function download(name: string, type: string, contents: string | Uint8Array): void {
  const url = URL.createObjectURL(new Blob([contents as BlobPart], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}
