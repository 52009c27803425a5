package xfrmnl

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Direction of an SA, which kernels know from Linux 6.10 on.
type Direction uint8

const (
	Undirected Direction = iota
	In
	Out
)

// Limits of an SA, as the kernel checks them: before each packet, and before that is counted. Zero is a limit that is
// reached before the first packet.
type Limits struct {
	Bytes, Packets uint64
	Seconds        uint64 // since it was added; 0 is none
}

// None is a limit of bytes or packets that is never reached.
const None = 1<<64 - 1

// NoLimits is no limit.
var NoLimits = Limits{Bytes: None, Packets: None}

// SA is a tunnel-mode ESP security association with rfc4106(gcm(aes)), a 256-bit key, a 16-byte ICV and extended
// sequence numbers, for inner packets of both families.
type SA struct {
	Src, Dst  netip.Addr
	SPI       uint32
	ReqID     uint32
	Key       *[32]byte
	Salt      [4]byte
	Direction Direction
	UDP       uint16 // port at both ends of ESP in UDP; 0 is IP protocol 50
	IfID      uint32 // of an xfrm interface; 0 is none
	Window    uint32 // packets, a multiple of 32 and not above MaxWindow
	In, Out   uint64 // sequence numbers: highest accepted, with all before it; last sent
	Soft      Limits
	Hard      Limits
}

// MaxWindow is the largest replay window in packets that the kernel takes (XFRMA_REPLAY_ESN_MAX).
const MaxWindow = 4096

// Attribute types.
const (
	attrEncap = 4
	attrTmpl  = 5
	attrSA    = 6
	attrAEAD  = 18
	attrESN   = 23
	attrIfID  = 31
	attrDir   = 33
)

const (
	flagAFUnspec = 32  // XFRM_STATE_AF_UNSPEC
	flagESN      = 128 // XFRM_STATE_ESN

	modeTunnel   = 1
	encapUDP     = 2 // UDP_ENCAP_ESPINUDP
	algorithm    = "rfc4106(gcm(aes))"
	sizeSelector = 56
	sizeLimits   = 64
	sizeInfo     = 224
	sizeSAID     = 24
	sizeESN      = 24
)

var native = binary.NativeEndian

// AddSA installs an SA. It leaves no copy of the key in this process.
func (c *Conn) AddSA(sa *SA) error {
	return c.do(msgNewSA, unix.NLM_F_CREATE|unix.NLM_F_EXCL, sa.encode(), nil)
}

func (sa *SA) encode() []byte {
	// One allocation, so that none with a part of the key is left behind.
	b := make([]byte, 0, 1024)
	b = append(b, make([]byte, sizeSelector)...) // matches everything, of either family
	b = sa.appendID(b)
	b = appendAddr(b, sa.Src)
	b = appendLimits(b, sa.Soft, sa.Hard)
	b = append(b, make([]byte, 32+12+4)...) // counters, statistics, sequence number of the request
	b = native.AppendUint32(b, sa.ReqID)
	b = native.AppendUint16(b, family(sa.Dst))
	b = append(b, modeTunnel, 0, flagESN|flagAFUnspec)
	b = append(b, make([]byte, sizeInfo-len(b))...)

	var aead [64 + 4 + 4 + 36]byte
	defer clear(aead[:])
	copy(aead[:], algorithm)
	native.PutUint32(aead[64:], 36*8)
	native.PutUint32(aead[68:], 16*8)
	copy(aead[72:], sa.Key[:])
	copy(aead[104:], sa.Salt[:])
	b = attribute(b, attrAEAD, aead[:])

	window := sa.Window
	if window == 0 && sa.Direction != Out {
		window = 32 // the kernel wants one, also where it has no use
	}
	esn := make([]byte, 0, sizeESN+MaxWindow/8)
	for _, v := range []uint32{(window + 31) / 32, uint32(sa.Out), uint32(sa.In), uint32(sa.Out >> 32), uint32(sa.In >> 32), window} {
		esn = native.AppendUint32(esn, v)
	}
	seen := make([]byte, (window+31)/32*4)
	if sa.In != 0 { // whatever was accepted before it is not accepted again
		for i := range seen {
			seen[i] = 0xff
		}
	}
	b = attribute(b, attrESN, append(esn, seen...))

	if sa.UDP != 0 {
		encap := native.AppendUint16(nil, encapUDP)
		encap = binary.BigEndian.AppendUint16(encap, sa.UDP)
		encap = binary.BigEndian.AppendUint16(encap, sa.UDP)
		b = attribute(b, attrEncap, append(encap, make([]byte, 2+16)...))
	}
	if sa.IfID != 0 {
		b = attribute(b, attrIfID, native.AppendUint32(nil, sa.IfID))
	}
	if sa.Direction != Undirected {
		b = attribute(b, attrDir, []byte{byte(sa.Direction)})
	}
	return b
}

// appendID appends a struct xfrm_id.
func (sa *SA) appendID(b []byte) []byte {
	b = appendAddr(b, sa.Dst)
	b = binary.BigEndian.AppendUint32(b, sa.SPI)
	return append(b, unix.IPPROTO_ESP, 0, 0, 0)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	n := len(b)
	b = append(b, a.AsSlice()...)
	return append(b, make([]byte, 16-(len(b)-n))...)
}

// appendLimits appends a struct xfrm_lifetime_cfg.
func appendLimits(b []byte, soft, hard Limits) []byte {
	for _, v := range []uint64{soft.Bytes, hard.Bytes, soft.Packets, hard.Packets, soft.Seconds, hard.Seconds, 0, 0} {
		b = native.AppendUint64(b, v)
	}
	return b
}

func family(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// State is what the kernel says of an SA. It never holds its key.
type State struct {
	Src, Dst  netip.Addr
	SPI       uint32
	ReqID     uint32
	Direction Direction
	UDP       uint16
	IfID      uint32
	Bytes     uint64 // of inner packets
	Packets   uint64
	Late      uint64 // packets left of the replay window
	Replayed  uint64
	Forged    uint64 // packets whose ICV was wrong
	In, Out   uint64 // sequence numbers: highest accepted, last sent
	Window    uint32
	Soft      Limits
	Hard      Limits
	Larval    bool // of GetSA: it has no key, because the kernel made it for a packet that had found none
}

// GetSA reads an SA; ESRCH where there is none.
func (c *Conn) GetSA(dst netip.Addr, spi uint32) (s State, err error) {
	err = c.do(msgGetSA, 0, said(dst, spi), func(b []byte) (err error) {
		if s, err = parseState(b); err != nil {
			return err
		}
		s.Larval = true
		for kind := range attributes(b[sizeInfo:]) {
			if kind == attrAEAD {
				s.Larval = false
			}
		}
		return nil
	})
	return s, err
}

// DeleteSA removes an SA; ESRCH where there is none.
func (c *Conn) DeleteSA(dst netip.Addr, spi uint32) error {
	return c.do(msgDelSA, 0, said(dst, spi), nil)
}

// said is a struct xfrm_usersa_id.
func said(dst netip.Addr, spi uint32) []byte {
	b := appendAddr(make([]byte, 0, sizeSAID), dst)
	b = binary.BigEndian.AppendUint32(b, spi)
	b = native.AppendUint16(b, family(dst))
	return append(b, unix.IPPROTO_ESP, 0)
}

// parseState reads a struct xfrm_usersa_info and the attributes after it.
func parseState(b []byte) (s State, err error) {
	if len(b) < sizeInfo {
		return s, errTruncated
	}
	info, b := b[:sizeInfo], b[sizeInfo:]
	v6 := native.Uint16(info[212:]) == unix.AF_INET6
	s = State{
		Dst: addr(info[56:], v6), SPI: binary.BigEndian.Uint32(info[72:]), Src: addr(info[80:], v6),
		Soft:  Limits{native.Uint64(info[96:]), native.Uint64(info[112:]), native.Uint64(info[128:])},
		Hard:  Limits{native.Uint64(info[104:]), native.Uint64(info[120:]), native.Uint64(info[136:])},
		Bytes: native.Uint64(info[160:]), Packets: native.Uint64(info[168:]),
		Late: uint64(native.Uint32(info[192:])), Replayed: uint64(native.Uint32(info[196:])), Forged: uint64(native.Uint32(info[200:])),
		ReqID: native.Uint32(info[208:]),
	}
	s.read(b)
	return s, nil
}

// read reads the attributes of an SA.
func (s *State) read(b []byte) {
	for kind, value := range attributes(b) {
		switch {
		case kind == attrESN && len(value) >= sizeESN:
			s.Out = uint64(native.Uint32(value[12:]))<<32 | uint64(native.Uint32(value[4:]))
			s.In = uint64(native.Uint32(value[16:]))<<32 | uint64(native.Uint32(value[8:]))
			s.Window = native.Uint32(value[20:])
		case kind == attrEncap && len(value) >= 6:
			s.UDP = binary.BigEndian.Uint16(value[4:])
		case kind == attrIfID && len(value) >= 4:
			s.IfID = native.Uint32(value)
		case kind == attrDir && len(value) >= 1:
			s.Direction = Direction(value[0])
		}
	}
}

func addr(b []byte, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte(b))
	}
	return netip.AddrFrom4([4]byte(b))
}

// Directions tells whether the kernel knows directions of SAs. It asks for an SPI with one, sees whether it comes back,
// and gives the SPI up.
func (c *Conn) Directions() (bool, error) {
	here := netip.AddrFrom4([4]byte{192, 0, 2, 255}) // of documentation (RFC 5737)
	sa := SA{Src: netip.AddrFrom4([4]byte{192, 0, 2, 254}), Dst: here}
	b := make([]byte, sizeSelector, sizeInfo+8+8)
	b = sa.appendID(b)
	b = appendAddr(b, sa.Src)
	b = append(b, make([]byte, 212-len(b))...)
	b = native.AppendUint16(b, family(here))
	b = append(b, modeTunnel)
	b = append(b, make([]byte, sizeInfo-len(b))...)
	const from, to = 0x100, 0xffffffff
	b = native.AppendUint32(b, from)
	b = native.AppendUint32(b, to)
	b = attribute(b, attrDir, []byte{byte(In)})
	var s State
	if err := c.do(msgAllocSPI, 0, b, func(b []byte) (err error) {
		s, err = parseState(b)
		return err
	}); err != nil {
		return false, err
	}
	if err := c.DeleteSA(here, s.SPI); err != nil && !errors.Is(err, unix.ESRCH) {
		return false, err
	}
	return s.Direction == In, nil
}
