package cycles

import "encoding/binary"

// Name of the counter.
const Name = "TSC"

func now() uint64
func adds(n uint64) (sum uint64)
func cpuid(leaf, sub uint32) (a, b, c, d uint32)

// Ask asks the processor by CPUID: the hypervisor bit (leaf 1, ECX bit 31) and the leaf at 0x40000000 that hypervisors
// answer, as Intel and AMD leave both to them; invariance from leaf 0x80000007, EDX bit 8 (Intel SDM, volume 3, section
// "Invariant TSC").
func Ask() Machine {
	m := Machine{Known: true}
	if _, _, c, _ := cpuid(1, 0); c>>31 == 1 {
		m.Virtual = true
		_, b, c, d := cpuid(0x40000000, 0)
		var s []byte
		for _, r := range []uint32{b, c, d} {
			s = binary.LittleEndian.AppendUint32(s, r)
		}
		m.Hypervisor = printable(s)
	}
	if most, _, _, _ := cpuid(0x80000000, 0); most >= 0x80000007 {
		_, _, _, d := cpuid(0x80000007, 0)
		m.Invariant = d>>8&1 == 1
	}
	return m
}

// printable is a signature without the zeros that fill it up.
func printable(s []byte) string {
	var out []byte
	for _, c := range s {
		if c > ' ' && c < 0x7f || c == ' ' && len(out) > 0 {
			out = append(out, c)
		}
	}
	return string(out)
}
