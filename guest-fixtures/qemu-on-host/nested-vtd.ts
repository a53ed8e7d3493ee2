// QEMU's own vIOMMU nested on the modelled VT-d: Debian amd64 with `intel-iommu,scalable-mode=on,fsts=on`, the model's NVMe drive behind it. The guest's kernel
// translates strictly by its own first stage, which QEMU hands to the host as it is and the host's IOMMU walks. Three runs: strict, recorded and replayed; a drive
// that changes domains; and without the invalidations, which the checker of stale accesses must say, killed there.

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cpio, EXECUTABLE } from "../debian/cpio.ts";
import { type DebianFixture, debianFixture } from "../debian/recipe.ts";
import { type NestedTrace, nestedTrace } from "./nested-trace.ts";
import { findQemu, machineOf, type Qemu } from "./qemu.ts";
import {
  check,
  checkReplay,
  DRIVE,
  describeHost,
  nothingLeft,
  qemuOf,
  type Run,
  runOnHost,
  show,
  VERIFIED,
} from "./runs.ts";

/** The first whose intel-iommu has these properties by these names. */
const OLDEST = 11;
const UNIT = "intel-iommu,intremap=on,scalable-mode=on,fsts=on,caching-mode=on";
// The kernel measures at its start whether the timer comes in time. On a busy machine QEMU's does not, and with interrupt remapping Linux panics then.
const STRICT = "loglevel=7 no_timer_check intel_iommu=on,sm_on iommu.strict=1";
const DOMAINS_SCRIPT = fileURLToPath(new URL("../../../guest-fixtures/qemu-on-host/domains.sh", import.meta.url));

interface Guest {
  readonly qemu: Qemu;
  readonly fixture: DebianFixture;
  readonly folder: string;
}

interface Boot {
  readonly host: readonly string[];
  /** Default: that of `describeHost`. */
  readonly drive?: string;
  readonly words?: string;
  readonly initrd?: string;
  readonly watch?: (output: string, child: { readonly pid?: number | undefined }) => void;
}

async function boot({ qemu, fixture }: Guest, options: Boot): Promise<Run> {
  const { host, drive = DRIVE, words = "nestbox.script", initrd, watch } = options;
  const images = { kernel: fixture.kernel, initrd: initrd ?? fixture.initrd };
  const devices = ["-M", "q35", "-device", UNIT, "-device", `vfio-pci,host=${drive},iommufd=iommufd0`];
  const run = await runOnHost({
    host: ["--check", "stale", ...host],
    qemu: [...machineOf(qemu, images, `${STRICT} ${words}`, "x86_64"), ...devices],
    environment: qemu.environment,
    ...(watch === undefined ? {} : { watch }),
  });
  show(run);
  return run;
}

/** The built-in host, and its drive: in memory. */
const INTEL = { host: ["--host", "intel"], drive: "0000:00:03.0" } as const;

const noneStale = (run: Run): boolean => /stale accesses: 0\r?$/m.test(run.output);

/** The length of the list of ranges is asked for first, the migration feature probed. */
const ASKED = ["IOMMU_IOAS_IOVA_RANGES -90", "VFIO_DEVICE_FEATURE -25"];

function checkRefusals({ refusals }: NestedTrace): void {
  const others = refusals.filter((one) => !ASKED.includes(one));
  check(others.length === 0, `the host refused no call but two questions (${others.join(", ") || "none"})`);
}

/** What the guest's kernel must say, and what it shows. */
const WANTED: readonly (readonly [RegExp, string])[] = [
  [/iommu: Default domain type: Translated/, "the guest's kernel translates DMA by default"],
  [/iommu: DMA domain TLB invalidation policy: strict mode/, "and invalidates strictly"],
  [/DMAR: Enable scalable mode if hardware supports/, "in scalable mode, if it is there"],
  [/DMAR: dmar0: Using Queued invalidation/, "its VT-d is up"],
  [/DMAR-IR: Enabled IRQ remapping in xapic mode/, "with interrupt remapping"],
  [/nestbox-demo: group \d+ type DMA devices 0000:00:02\.0/, "the drive's group is of type DMA"],
  [VERIFIED, "the guest verified its file's checksum"],
];

async function checkStrict(guest: Guest): Promise<void> {
  const { host, disk } = describeHost(guest.folder, "vtd");
  const [recording, trace] = [join(guest.folder, "vtd.nestbox"), join(guest.folder, "vtd.jsonl")];
  const run = await boot(guest, { host: ["--host", host, "--record", recording, "--trace", trace] });
  check(run.status === 0, `QEMU boots Debian amd64 behind its own VT-d (${run.status}, ${run.seconds.toFixed(0)} s)`);
  for (const [pattern, what] of WANTED) check(pattern.test(run.output), what);
  const seen = await nestedTrace(trace, DRIVE);
  check(
    seen.hwpts === 1 && seen.domains.join() === "paging,nested",
    `the drive went from the parent to one nested HWPT (${seen.hwpts}; ${seen.domains.join(", ")})`,
  );
  check(
    seen.dmas > 1000 && seen.refused === 0,
    `everything the guest's driver moved went through it (${seen.dmas} DMAs, ${seen.refused} refused)`,
  );
  check(
    seen.firstStageReads > 1000,
    `the host's IOMMU read the guest's own first-stage entries (${seen.firstStageReads}, and what it had cached)`,
  );
  check(
    seen.invalidations > 100 && seen.invalidated === seen.invalidations,
    `each IOMMU_HWPT_INVALIDATE became a PASID-IOTLB invalidation (${seen.invalidated} of ${seen.invalidations})`,
  );
  check(seen.readOnlyMaps === 0, `nothing was mapped read-only into the parent (errata 772415; ${seen.readOnlyMaps})`);
  checkRefusals(seen);
  check(noneStale(run), "no DMA went by a translation that the tables no longer held");
  check(nothingLeft(run), "nothing is left in the host");
  const sector = readFileSync(disk).subarray(0, 512);
  check(sector[510] === 0x55 && sector[511] === 0xaa, "the drive's file holds the guest's partition table");
  rmSync(disk);
  checkReplay(recording, trace);
}

/** The drive's group changes type with its driver unbound: PASID entries come, go and change their PGTT. */
async function checkDomains(guest: Guest): Promise<void> {
  const initrd = join(guest.folder, "domains.cpio");
  const script = cpio([{ path: "domains", mode: EXECUTABLE, data: readFileSync(DOMAINS_SCRIPT) }]);
  writeFileSync(initrd, Buffer.concat([readFileSync(guest.fixture.initrd), script]));
  const trace = join(guest.folder, "domains.jsonl");
  const run = await boot(guest, {
    ...INTEL,
    host: [...INTEL.host, "--trace", trace],
    words: "rdinit=/domains",
    initrd,
  });
  const lines = [...run.output.matchAll(/nestbox-domains: (?:written|verified) as (\S+)/g)].map(([, type]) => type);
  check(
    run.status === 0 && lines.join() === "DMA,identity,DMA-FQ,DMA",
    `a file outlives its drive's moves between domains (${lines.join(", ")}; ${run.seconds.toFixed(0)} s)`,
  );
  const seen = await nestedTrace(trace, INTEL.drive);
  check(
    seen.hwpts === 3 && seen.domains.join() === "paging,nested,paging,nested,nested",
    `the host's domains followed (${seen.hwpts} nested HWPTs; ${seen.domains.join(", ")})`,
  );
  checkRefusals(seen);
  check(noneStale(run) && seen.refused === 0, `without a stale access, and none was refused (${seen.refused})`);
  check(nothingLeft(run), "nothing is left in the host");
}

/** The host answers IOMMU_HWPT_INVALIDATE and does nothing: the drive goes on by what its IOMMU has cached, into pages that have another use by now. */
async function checkDropped(guest: Guest): Promise<void> {
  const rule = "ioctl:IOMMU_HWPT_INVALIDATE=drop";
  let killed = false;
  const run = await boot(guest, {
    ...INTEL,
    host: [...INTEL.host, "--inject", rule],
    watch: (output, child) => {
      if (killed || !/nestbox: stale: .*\n/.test(output)) return;
      killed = true;
      process.kill(qemuOf(child.pid!), "SIGKILL");
    },
  });
  const stale = `nestbox: stale: ${INTEL.drive} (?:reads|writes) IOVA 0x[0-9a-f]+ at 0x[0-9a-f]+, which dmar0 has cached`;
  check(
    new RegExp(`^${stale}.*without IOMMU_HWPT_INVALIDATE\r?$`, "m").test(run.output),
    `with ${rule} the checker says which access was stale, and whose invalidation is missing`,
  );
  check(run.status === 128 + 9, `QEMU is killed there, while its guest's stage is nested (${run.status})`);
  check(nothingLeft(run), "nothing is left in the host");
}

export async function checkNestedVtd(folder: string, log: (line: string) => void): Promise<void> {
  const qemu = findQemu(log, "x86_64", OLDEST);
  const fixture = debianFixture({ architecture: "amd64", log });
  console.log(`${qemu.version}; kernel ${fixture.release}`);
  const guest = { qemu, fixture, folder };
  await checkStrict(guest);
  await checkDomains(guest);
  await checkDropped(guest);
}
