// Lines for the person who runs a VM, bounded: a guest that provokes refusals without end fills neither a terminal nor a log.

const LIMIT = 200;

/** Passes the first `limit` lines on, then one that says that no more will come. */
export function limitedReport(report: (message: string) => void, limit = LIMIT): (message: string) => void {
  let said = 0;
  return (message) => {
    if (said < limit) report(message);
    else if (said === limit) report("further messages of this kind are not shown");
    if (said <= limit) said++;
  };
}
