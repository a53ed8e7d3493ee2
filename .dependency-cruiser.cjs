// Import directions (README, "Rooms"): imports point down only.
const down = (name, from, to, comment) => ({
  name,
  severity: "error",
  comment,
  from: { path: from },
  to: { path: to },
});
module.exports = {
  forbidden: [
    down(
      "base-imports-nothing",
      "^host/base/",
      "^(host/(?!base/)|vmm/|guest-fixtures/|test/)",
      "host/base imports nothing of ours",
    ),
    down(
      "arch-sees-base",
      "^host/arch/",
      "^(host/(?!base/|arch/)|vmm/|guest-fixtures/|test/)",
      "host/arch may import host/base only",
    ),
    down(
      "uapi-sees-base",
      "^host/uapi/",
      "^(host/(?!base/|uapi/)|vmm/|guest-fixtures/|test/)",
      "host/uapi may import host/base only",
    ),
    down(
      "devices-see-base",
      "^host/devices/",
      "^(host/(?!base/|devices/)|vmm/|guest-fixtures/|test/)",
      "host/devices may import host/base only",
    ),
    down(
      "hw-sees-what-lies-below",
      "^host/hw/",
      "^(host/(kernel|adapters|[^/]+\\.ts)|vmm/|guest-fixtures/|test/)",
      "host/hw imports base, arch, uapi, devices",
    ),
    down(
      "kernel-sees-what-lies-below",
      "^host/kernel/",
      "^(host/(adapters|[^/]+\\.ts)|vmm/|guest-fixtures/|test/)",
      "host/kernel imports nothing above it",
    ),
    down("host-knows-no-vmm", "^host/", "^(vmm|guest-fixtures|test)/", "the host knows no VMM"),
    down(
      "vmm-enters-by-system-calls",
      "^vmm/(?!cli/|scenario/|ui/run/)",
      "^host/(hw|kernel|adapters|[^/]+\\.ts)",
      "the VMM reaches the host by system calls only",
    ),
    down(
      "vmm-shell-makes-a-host",
      "^vmm/(cli|scenario|ui)/",
      "^host/(hw|kernel)/",
      "only host/ itself puts a host together",
    ),
    down(
      "viommu-knows-no-vfio",
      "^vmm/viommu/",
      "^vmm/(vfio|cli|scenario)/",
      "vmm/viommu speaks to a port; vmm/vfio implements it",
    ),
    down(
      "engine-knows-no-instruction-set",
      "^vmm/vcpu/engine/",
      "^vmm/(?!vcpu/engine/)",
      "front ends import the engine, not the other way",
    ),
    // A kind is folders and table lines: only kinds.ts, and the library's line for what a kind's scenarios use, name one.
    {
      name: "shared-rooms-name-no-kind",
      severity: "error",
      comment: "vmm's shared rooms reach an architecture through vmm/viommu/kind.ts and its neighbours",
      from: {
        path: "^vmm/(vfio|scenario|view|ui|pci|cli|[^/]+\\.ts$|viommu/[^/]+\\.ts$)",
        pathNot: "^vmm/(viommu/kinds\\.ts|scenario/index\\.ts|rv64-machine\\.ts)$",
      },
      to: { path: "^(host/arch/|host/uapi/[a-z0-9]+-nesting\\.ts|vmm/viommu/[^/]+/)" },
    },
    {
      name: "kernel-core-names-no-kind",
      severity: "error",
      comment: "host/kernel's shared rooms reach a driver through host/kernel/iommu/driver.ts and hardware.ts",
      from: {
        path: "^host/(kernel/(iommufd|vfio|pci|platform|iommu/[^/]+\\.ts$|[^/]+\\.ts$)|[^/]+\\.ts$)",
        pathNot: "^host/kernel/iommu/kinds\\.ts$",
      },
      to: { path: "^host/(arch/|hw/iommu/[^/]+/|kernel/iommu/(?!mock/)[^/]+/|uapi/[a-z0-9]+-nesting\\.ts)" },
    },
    down("product-knows-no-tests", "^(host|vmm|guest-fixtures)/", "^test/", "tests are not part of the product"),
    {
      name: "core-runs-in-a-browser",
      severity: "error",
      comment: "node: only in host/adapters, vmm/cli and what builds fixtures",
      from: { path: "^(host/(?!adapters/)|vmm/(?!cli/|scenario/files/|vcpu/[^/]+/build\\.mjs))" },
      to: { dependencyTypes: ["core"] },
    },
    // Circles of value imports are Biome's (noImportCycles): swc does not tell type imports apart, and those may be mutual.
    { name: "no-unresolvable", severity: "error", from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    parser: "swc",
    tsPreCompilationDeps: true,
    doNotFollow: { path: "node_modules" },
    // Pages in TSX: swc's parser, as dependency-cruiser calls it, reads none. Their directions are Biome's (biome.json, noRestrictedImports).
    exclude: { path: "/assembly/|/build/|^dist/|\\.tsx$" },
    enhancedResolveOptions: {
      extensions: [".ts", ".mjs", ".js"],
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default"],
    },
  },
};
