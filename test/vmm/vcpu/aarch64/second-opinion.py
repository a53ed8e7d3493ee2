# Executes single A64 instructions on Unicorn (Debian's python3-unicorn): a second opinion for second-opinion.test.ts.
# In: JSON, a line each {code, x[31], v[32], sp, nzcv, fpcr}, numbers as hexadecimal strings; memory is the same for all, from DATA on, byte i = i * 7 + i // 256.
# Out: a line each {ok} or {ok, x, v, sp, nzcv, fpsr, memory: [[offset, byte], ...]}.
import json
import sys

from unicorn import UC_ARCH_ARM64, UC_MODE_ARM, Uc, UcError
import unicorn.arm64_const as arm64

CODE = 0x80001000
DATA = 0x80010000
BYTES = 0x10000

uc = Uc(UC_ARCH_ARM64, UC_MODE_ARM)
uc.ctl_set_cpu_model(arm64.UC_CPU_ARM64_A53)
uc.mem_map(0x80000000, 0x10000)
uc.mem_map(DATA, BYTES)
uc.reg_write(arm64.UC_ARM64_REG_CPACR_EL1, 3 << 20)
X = [arm64.UC_ARM64_REG_X0 + i for i in range(29)] + [arm64.UC_ARM64_REG_X29, arm64.UC_ARM64_REG_X30]
V = [arm64.UC_ARM64_REG_Q0 + i for i in range(32)]
initial = bytes((i * 7 + i // 256) & 255 for i in range(BYTES))

for line in sys.stdin:
    case = json.loads(line)
    uc.mem_write(DATA, initial)
    uc.mem_write(CODE, int(case["code"], 16).to_bytes(4, "little"))
    for register, value in zip(X, case["x"]):
        uc.reg_write(register, int(value, 16))
    for register, value in zip(V, case["v"]):
        uc.reg_write(register, int(value, 16))
    uc.reg_write(arm64.UC_ARM64_REG_SP, int(case["sp"], 16))
    uc.reg_write(arm64.UC_ARM64_REG_NZCV, case["nzcv"] << 28)
    uc.reg_write(arm64.UC_ARM64_REG_FPCR, int(case["fpcr"], 16))
    uc.reg_write(arm64.UC_ARM64_REG_FPSR, 0)
    try:
        uc.emu_start(CODE, CODE + 4, count=1)
    except UcError:
        print(json.dumps({"ok": False}))
        continue
    memory = bytes(uc.mem_read(DATA, BYTES))
    changed = [] if memory == initial else [[i, memory[i]] for i in range(BYTES) if memory[i] != initial[i]]
    print(
        json.dumps(
            {
                "ok": True,
                "x": [hex(uc.reg_read(register)) for register in X],
                "v": [hex(uc.reg_read(register)) for register in V],
                "sp": hex(uc.reg_read(arm64.UC_ARM64_REG_SP)),
                "nzcv": uc.reg_read(arm64.UC_ARM64_REG_NZCV) >> 28 & 15,
                "fpsr": uc.reg_read(arm64.UC_ARM64_REG_FPSR),
                "memory": changed,
            }
        )
    )
