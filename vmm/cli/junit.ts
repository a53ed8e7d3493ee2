// Results as a JUnit XML document, for CI systems.

/** One result: of a scenario, of a fuzzer's seed, of a shard. */
export interface TestCase {
  /** What it belongs to: a file, a fuzzer. */
  readonly classname: string;
  readonly name: string;
  readonly seconds: number;
  /** Where in the user's source. */
  readonly file?: string | undefined;
  readonly line?: number | undefined;
  /** Absent: it passed. */
  readonly failure?: Failure | undefined;
}

export interface Failure {
  /** One word. */
  readonly kind: string;
  /** One line. */
  readonly message: string;
  /** Everything. */
  readonly text: string;
}

export function junitXml(cases: readonly TestCase[]): string {
  const failures = cases.filter(({ failure }) => failure !== undefined).length;
  const seconds = cases.reduce((sum, testCase) => sum + testCase.seconds, 0);
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    "<testsuites>",
    `  <testsuite name="nestbox" tests="${cases.length}" failures="${failures}" time="${seconds.toFixed(3)}">`,
    ...cases.map(caseXml),
    "  </testsuite>",
    "</testsuites>",
    "",
  ].join("\n");
}

function caseXml({ classname, name, seconds, file, line, failure }: TestCase): string {
  const place = file === undefined ? "" : ` file="${escapeXml(file)}"${line === undefined ? "" : ` line="${line}"`}`;
  const head = `    <testcase classname="${escapeXml(classname)}" name="${escapeXml(name)}"${place} time="${seconds.toFixed(3)}"`;
  if (failure === undefined) return `${head}/>`;
  const about = `type="${escapeXml(failure.kind)}" message="${escapeXml(failure.message)}"`;
  return `${head}>\n      <failure ${about}>${escapeXml(failure.text)}</failure>\n    </testcase>`;
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
