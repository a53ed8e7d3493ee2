// Scenario results as a JUnit XML document, for CI systems.

import { failurePlace, type ScenarioReport, stackLines } from "./scenario-report.ts";

export function junitXml(reports: readonly ScenarioReport[]): string {
  const failures = reports.filter(({ result }) => !result.passed).length;
  const seconds = reports.reduce((sum, { wallMs }) => sum + wallMs, 0) / 1000;
  const cases = reports.map((report) => {
    const { file, result, wallMs, frames } = report;
    const place = frames[0] === undefined ? "" : ` file="${escapeXml(frames[0].file)}" line="${frames[0].line}"`;
    const head = `    <testcase classname="${escapeXml(file)}" name="${escapeXml(result.name)}"${place} time="${(wallMs / 1000).toFixed(3)}"`;
    if (result.passed) return `${head}/>`;
    const body = escapeXml([`${failurePlace(report)}: ${result.message}`, ...stackLines(report)].join("\n"));
    return `${head}>\n      <failure type="${result.kind}" message="${escapeXml(result.message)}">${body}</failure>\n    </testcase>`;
  });
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    "<testsuites>",
    `  <testsuite name="nestbox" tests="${reports.length}" failures="${failures}" time="${seconds.toFixed(3)}">`,
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
