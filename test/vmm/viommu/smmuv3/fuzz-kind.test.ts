import { describe, expect, it } from "vitest";
import { nestbox } from "../../cli/command-line.ts";

describe("nestbox fuzz --kind", { timeout: 600_000 }, () => {
  it("chooses the fuzzer of that name for another kind", () => {
    const { status, output } = nestbox("fuzz", "viommu", "--kind", "smmuv3", "--rounds", "1");
    expect(output).toContain("fuzz smmuv3-viommu: no finding in 1 rounds");
    expect(status).toBe(0);
  });

  it("says which there are where that kind has none", () => {
    const { status, errors } = nestbox("fuzz", "viommu", "--kind", "nonesuch", "--rounds", "1");
    expect(errors).toContain("fuzz nonesuch-viommu: no such fuzzer");
    expect(status).toBe(2);
  });
});
