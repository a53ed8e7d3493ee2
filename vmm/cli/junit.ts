// Scenario results as a JUnit XML document, for CI systems.

import type { ScenarioResult } from "../scenario/run-scenario.ts";

export interface FileResult {
  readonly file: string;
  readonly result: ScenarioResult;
  readonly wallMs: number;
}

export function junitXml(results: readonly FileResult[]): string {
  const failures = results.filter(({ result }) => !result.passed).length;
  const seconds = results.reduce((sum, { wallMs }) => sum + wallMs, 0) / 1000;
  const cases = results.map(({ file, result, wallMs }) => {
    const head = `    <testcase classname="${escapeXml(file)}" name="${escapeXml(result.name)}" time="${(wallMs / 1000).toFixed(3)}"`;
    if (result.passed) return `${head}/>`;
    const body = escapeXml(`${result.message}\n${result.stack}`);
    return `${head}>\n      <failure type="${result.kind}" message="${escapeXml(result.message)}">${body}</failure>\n    </testcase>`;
  });
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    "<testsuites>",
    `  <testsuite name="nestbox" tests="${results.length}" failures="${failures}" time="${seconds.toFixed(3)}">`,
    ...cases,
    "  </testsuite>",
    "</testsuites>",
    "",
  ].join("\n");
}

function escapeXml(text: string): string {
  return (
    text
      .replaceAll("&", "&amp;")
      .replaceAll("<", "&lt;")
      .replaceAll(">", "&gt;")
      .replaceAll('"', "&quot;")
      // Control characters have no place in XML 1.0.
      .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd]/g, "?")
  );
}
