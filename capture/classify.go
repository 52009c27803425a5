package capture

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"golang.org/x/net/bpf"
)

// kind is what a packet on a protected link is. Each packet is of exactly one.
type kind int

const (
	other     kind = iota // none of those below
	esp                   // IP protocol 50, fragments included
	espInUDP              // UDP from port 4500 to port 4500 (RFC 3948)
	exchange              // TCP from or to an address and port of the exchange
	plaintext             // between the subnets of a pair
	kinds
)

// Pair is two subnets between which nothing may pass in the clear, in either direction.
type Pair struct{ A, B netip.Prefix }

// Wanted says what a Watcher tells apart.
//
// Between the subnets of a pair everything is plaintext but: ESP; ESP in UDP; the exchange; IPv6 neighbour discovery
// (ICMPv6 133 to 137, RFC 4861), which no tunnel can carry; and fragments of UDP datagrams after the first, which do not
// tell their ports. A datagram in the clear is still found by its first fragment. The last three matter only
// where a tunnel protects the addresses of its own ends.
//
// Addresses are those of the outermost IP header: what is wrapped in another encapsulation is not looked into.
type Wanted struct {
	Pairs    []Pair
	Exchange []netip.AddrPort // where the ends of the tunnels listen for the key exchange
}

const (
	udpESP    = 4500
	protoTCP  = 6
	protoUDP  = 17
	protoFrag = 44 // IPv6 fragment header
	protoESP  = 50
	protoICMP = 58 // of IPv6
	ndFirst   = 133
	ndLast    = 137
	scratch   = 0 // holds the protocol
)

// program writes a filter with labels in place of distances. A conditional jump of classic BPF reaches 255 instructions,
// an unconditional one all of them.
type program struct {
	code   []bpf.Instruction
	jumps  map[int]string // index of a jump: its label
	labels map[string]int
	unique int
}

func (p *program) emit(i ...bpf.Instruction) { p.code = append(p.code, i...) }

func (p *program) label(name string) { p.labels[name] = len(p.code) }

func (p *program) fresh() string {
	p.unique++
	return strconv.Itoa(p.unique)
}

func (p *program) jump(to string) {
	p.jumps[len(p.code)] = to
	p.emit(bpf.Jump{})
}

// jumpIf goes to a label if A compares so with val. The label may be anywhere below.
func (p *program) jumpIf(cond bpf.JumpTest, val uint32, to string) {
	p.emit(bpf.JumpIf{Cond: cond, Val: val, SkipFalse: 1})
	p.jump(to)
}

// jumpUnless goes to a label within reach if A is not val.
func (p *program) jumpUnless(val uint32, to string) {
	p.jumps[len(p.code)] = to
	p.emit(bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: val})
}

func (p *program) resolve() []bpf.Instruction {
	for i, to := range p.jumps {
		distance := p.labels[to] - i - 1
		switch j := p.code[i].(type) {
		case bpf.Jump:
			j.Skip = uint32(distance)
			p.code[i] = j
		case bpf.JumpIf:
			j.SkipTrue = uint8(distance) // two addresses of four words each are 24 instructions
			p.code[i] = j
		}
	}
	return p.code
}

// filter gives a program that accepts the first snap bytes of packets of one kind and refuses all others. It reads a
// packet from its IP header on, and never beyond its end: a load beyond it would make every kind's filter refuse it, and so
// hide it.
func (w Wanted) filter(want kind, snap uint32) []bpf.Instruction {
	p := &program{jumps: map[int]string{}, labels: map[string]int{}}

	p.emit(bpf.LoadExtension{Num: bpf.ExtLen})
	p.jumpIf(bpf.JumpLessThan, 20, "other")
	p.emit(bpf.LoadAbsolute{Off: 0, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4})
	p.jumpIf(bpf.JumpEqual, 4, "ipv4")
	p.jumpIf(bpf.JumpEqual, 6, "ipv6")
	p.jump("other")

	p.label("ipv4")
	p.emit(bpf.LoadAbsolute{Off: 9, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: scratch})
	p.jumpIf(bpf.JumpEqual, protoESP, "esp")
	p.emit(bpf.LoadAbsolute{Off: 6, Size: 2}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x1fff})
	p.jumpIf(bpf.JumpNotEqual, 0, "later4")
	p.emit(bpf.LoadMemShift{Off: 0})
	w.transport(p, ipv4)
	p.label("later4")
	p.emit(bpf.LoadScratch{Dst: bpf.RegA, N: scratch})
	p.jumpIf(bpf.JumpEqual, protoUDP, "other")
	p.label(ipv4.pairs)
	w.pairs(p, ipv4)
	p.jump("other")

	p.label("ipv6")
	p.emit(bpf.LoadExtension{Num: bpf.ExtLen})
	p.jumpIf(bpf.JumpLessThan, 40, "other")
	p.emit(bpf.LoadConstant{Dst: bpf.RegX, Val: 40})
	p.emit(bpf.LoadAbsolute{Off: 6, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: scratch})
	p.jumpIf(bpf.JumpEqual, protoESP, "esp")
	p.jumpIf(bpf.JumpNotEqual, protoFrag, "whole6")
	p.emit(bpf.LoadExtension{Num: bpf.ExtLen})
	p.jumpIf(bpf.JumpLessThan, 48, ipv6.pairs)
	p.emit(bpf.LoadConstant{Dst: bpf.RegX, Val: 48})
	p.emit(bpf.LoadAbsolute{Off: 40, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: scratch})
	p.jumpIf(bpf.JumpEqual, protoESP, "esp")
	p.emit(bpf.LoadAbsolute{Off: 42, Size: 2}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xfff8})
	p.jumpIf(bpf.JumpEqual, 0, "whole6")
	p.emit(bpf.LoadScratch{Dst: bpf.RegA, N: scratch})
	p.jumpIf(bpf.JumpEqual, protoUDP, "other")
	p.jump(ipv6.pairs)
	p.label("whole6")
	w.transport(p, ipv6)
	p.label(ipv6.pairs)
	w.pairs(p, ipv6)
	p.jump("other")

	for k, name := range [kinds]string{"other", "esp", "espInUDP", "exchange", "plaintext"} {
		p.label(name)
		if kind(k) == want {
			p.emit(bpf.RetConstant{Val: snap})
		} else {
			p.emit(bpf.RetConstant{Val: 0})
		}
	}
	return p.resolve()
}

// family is what differs between the IP versions.
type family struct {
	src, dst uint32 // offsets of the addresses
	bits     int    // of an address
	pairs    string // label
}

var (
	ipv4 = family{12, 16, 32, "pairs4"}
	ipv6 = family{8, 24, 128, "pairs6"}
)

// transport looks at the header at X, of the protocol in scratch memory, and goes on to the pairs unless that decides.
func (w Wanted) transport(p *program, f family) {
	p.emit(bpf.LoadExtension{Num: bpf.ExtLen})
	p.emit(bpf.JumpIfX{Cond: bpf.JumpGreaterOrEqual, SkipTrue: 1})
	p.jump(f.pairs)
	p.emit(bpf.ALUOpX{Op: bpf.ALUOpSub})
	p.jumpIf(bpf.JumpLessThan, 4, f.pairs) // too short for ports
	p.emit(bpf.LoadScratch{Dst: bpf.RegA, N: scratch})
	p.jumpIf(bpf.JumpEqual, protoTCP, "tcp"+f.pairs)
	p.jumpIf(bpf.JumpEqual, protoUDP, "udp"+f.pairs)
	if f == ipv6 {
		p.jumpIf(bpf.JumpNotEqual, protoICMP, f.pairs)
		p.emit(bpf.LoadIndirect{Off: 0, Size: 1})
		p.jumpIf(bpf.JumpLessThan, ndFirst, f.pairs)
		p.jumpIf(bpf.JumpGreaterThan, ndLast, f.pairs)
		p.jump("other")
	}
	p.jump(f.pairs)

	p.label("udp" + f.pairs)
	p.emit(bpf.LoadIndirect{Off: 0, Size: 4})
	p.jumpIf(bpf.JumpEqual, udpESP<<16|udpESP, "espInUDP")
	p.jump(f.pairs)

	p.label("tcp" + f.pairs)
	for _, e := range w.Exchange {
		addr := e.Addr().Unmap()
		if addr.BitLen() != f.bits {
			continue
		}
		own := netip.PrefixFrom(addr, addr.BitLen())
		for _, end := range []struct{ address, port uint32 }{{f.src, 0}, {f.dst, 2}} {
			no := p.fresh()
			p.emit(bpf.LoadIndirect{Off: end.port, Size: 2})
			p.jumpUnless(uint32(e.Port()), no)
			within(p, end.address, own, no)
			p.jump("exchange")
			p.label(no)
		}
	}
	p.jump(f.pairs)
}

// pairs goes to plaintext if the packet is between the subnets of a pair, and else falls through.
func (w Wanted) pairs(p *program, f family) {
	for _, pair := range w.Pairs {
		if pair.A.Addr().BitLen() != f.bits || pair.B.Addr().BitLen() != f.bits {
			continue
		}
		for _, way := range [][2]netip.Prefix{{pair.A, pair.B}, {pair.B, pair.A}} {
			no := p.fresh()
			within(p, f.src, way[0], no)
			within(p, f.dst, way[1], no)
			p.jump("plaintext")
			p.label(no)
		}
	}
}

// within goes to no, which is near, unless the address at off is in prefix.
func within(p *program, off uint32, prefix netip.Prefix, no string) {
	address := prefix.Masked().Addr().AsSlice()
	for bits := prefix.Bits(); bits > 0; bits -= 32 {
		p.emit(bpf.LoadAbsolute{Off: off, Size: 4})
		if bits < 32 {
			p.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(0) << (32 - bits)})
		}
		p.jumpUnless(binary.BigEndian.Uint32(address), no)
		address = address[4:]
		off += 4
	}
}
