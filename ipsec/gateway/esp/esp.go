// Package esp seals and opens ESP packets in tunnel mode (RFC 4303) with AES-256-GCM and a 16-byte ICV (RFC 4106) and
// extended sequence numbers (RFC 4303 section 2.2.1). It knows nothing of sockets, policies and limits.
package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"math"
)

// Sizes in bytes.
const (
	headerLen  = 8 // SPI and low half of the sequence number
	ivLen      = 8
	icvLen     = 16
	trailerLen = 2 // pad length and next header
	align      = 4 // of the ciphertext's end

	// Offset is where the inner packet begins in an ESP packet.
	Offset = headerLen + ivLen
	// minLen is a packet that holds nothing but padding.
	minLen = Offset + align + icvLen
)

// Next header values that tunnel mode uses.
const (
	IPv4 = 4
	IPv6 = 41
	None = 59 // a dummy, for traffic flow confidentiality (RFC 4303 section 2.6)
)

// Errors of Open and Seal. They say nothing about the packet: whoever counts them knows the SA.
var (
	ErrMalformed = errors.New("esp: malformed packet")
	// ErrReplay also stands for a packet that fails the integrity check where it could only be an old one.
	ErrReplay    = errors.New("esp: sequence number seen before or left of the window")
	ErrIntegrity = errors.New("esp: integrity check failed")
	ErrExhausted = errors.New("esp: sequence numbers are used up")
)

// Size is the length of the ESP packet, without outer headers, that carries n bytes.
func Size(n int) int { return Offset + Plaintext(n) + icvLen }

// Plaintext is what is given to the cipher for an inner packet of n bytes: the packet, padding and trailer.
func Plaintext(n int) int { return (n + trailerLen + align - 1) &^ (align - 1) }

// Room is the largest inner packet whose ESP packet fits in n bytes; it is not positive when none does.
func Room(n int) int { return (n-Offset-icvLen)&^(align-1) - trailerLen }

// SPI of a packet, which must have 4 bytes or more.
func SPI(packet []byte) uint32 { return binary.BigEndian.Uint32(packet) }

// suite is one direction's cipher with its scratch, which lies here so that a call through cipher.AEAD allocates
// nothing.
type suite struct {
	aead  cipher.AEAD
	nonce [12]byte // salt and IV (RFC 4106 section 4)
	aad   [12]byte // SPI and 64-bit sequence number (RFC 4106 section 5)
}

func newSuite(spi uint32, key *[32]byte, salt [4]byte) (suite, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return suite{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return suite{}, err
	}
	s := suite{aead: aead}
	copy(s.nonce[:], salt[:])
	binary.BigEndian.PutUint32(s.aad[:], spi)
	return s, nil
}

// Sealer makes the packets of one outbound SA. It is used by one goroutine.
type Sealer struct {
	suite
	seq uint64
}

// NewSealer makes a Sealer whose first packet has the number seq+1.
func NewSealer(spi uint32, key *[32]byte, salt [4]byte, seq uint64) (*Sealer, error) {
	s, err := newSuite(spi, key, salt)
	return &Sealer{suite: s, seq: seq}, err
}

// Seq is the sequence number of the last packet.
func (s *Sealer) Seq() uint64 { return s.seq }

// Seal turns buf into an ESP packet. The inner packet of n bytes stands at buf[Offset:]; buf has Size(n) bytes. Its
// only error is ErrExhausted: a number is never used twice.
func (s *Sealer) Seal(buf []byte, n int, next byte) error {
	if s.seq == math.MaxUint64 {
		return ErrExhausted
	}
	s.seq++
	end := Offset + Plaintext(n)
	pad := end - Offset - n - trailerLen
	for i := range pad {
		buf[Offset+n+i] = byte(i + 1)
	}
	buf[end-2], buf[end-1] = byte(pad), next

	binary.BigEndian.PutUint64(s.aad[4:], s.seq)
	copy(buf[:4], s.aad[:4])
	copy(buf[4:8], s.aad[8:])
	// The IV need only be unique under the key (RFC 4106 section 3.1), which the sequence number is.
	copy(buf[headerLen:Offset], s.aad[4:])
	copy(s.nonce[4:], s.aad[4:])
	s.aead.Seal(buf[Offset:Offset], s.nonce[:], buf[Offset:end], s.aad[:])
	return nil
}

// Opener opens the packets of one inbound SA. It is used by one goroutine.
type Opener struct {
	suite
	window *Window
}

// NewOpener makes an Opener that has seen every number up to seq.
func NewOpener(spi uint32, key *[32]byte, salt [4]byte, window uint32, seq uint64) (*Opener, error) {
	s, err := newSuite(spi, key, salt)
	return &Opener{suite: s, window: NewWindow(window, seq)}, err
}

// Seq is the highest sequence number accepted.
func (o *Opener) Seq() uint64 { return o.window.Top() }

// Payload is what a packet held.
type Payload struct {
	Inner []byte // shares the packet's memory; may end in padding for traffic flow confidentiality
	Next  byte   // IPv4, IPv6 or None
	Len   int    // bytes that the cipher authenticated and decrypted; 0 where the packet was refused before
}

// Open decrypts a packet in place. The replay window is checked before the ICV and moved after it (RFC 4303 section
// 3.4.3). A packet that is refused as malformed after it was authenticated has moved the window, and its Len is set.
func (o *Opener) Open(packet []byte) (Payload, error) {
	if len(packet) < minLen || len(packet)%align != 0 {
		return Payload{}, ErrMalformed
	}
	seq, ok := o.window.Extend(binary.BigEndian.Uint32(packet[4:]))
	if !ok || !o.window.Check(seq) {
		return Payload{}, ErrReplay
	}
	copy(o.nonce[4:], packet[headerLen:Offset])
	binary.BigEndian.PutUint64(o.aad[4:], seq)
	plain, err := o.aead.Open(packet[Offset:Offset], o.nonce[:], packet[Offset:], o.aad[:])
	if err != nil {
		// What lies left of the window is taken for a number of the next 2^32, and so fails here. Nobody is that far ahead.
		if seq > o.window.Top()+1<<31 {
			return Payload{}, ErrReplay
		}
		return Payload{}, ErrIntegrity
	}
	o.window.Update(seq)

	p := Payload{Next: plain[len(plain)-1], Len: len(plain)}
	pad := int(plain[len(plain)-2])
	n := len(plain) - trailerLen - pad
	if n < 0 {
		return p, ErrMalformed
	}
	for i, b := range plain[n : n+pad] {
		if b != byte(i+1) {
			return p, ErrMalformed
		}
	}
	switch p.Next {
	case IPv4, IPv6, None:
		p.Inner = plain[:n]
		return p, nil
	}
	return p, ErrMalformed
}
