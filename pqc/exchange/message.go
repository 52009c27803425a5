package exchange

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"pqlab/pqc"
)

// version of the protocol, in the proposal and, by way of ALPN, in the TLS handshake.
const version = 1

type messageType uint8

const (
	typeTLS          messageType = 0 // not a message: names the step before them
	typeProposal     messageType = 1
	typeOffer        messageType = 2
	typeAnswer       messageType = 3
	typeConfirmation messageType = 4
	typeDone         messageType = 5
	typeAlert        messageType = 255
)

func (t messageType) String() string {
	switch t {
	case typeTLS:
		return "tls"
	case typeProposal:
		return "proposal"
	case typeOffer:
		return "offer"
	case typeAnswer:
		return "answer"
	case typeConfirmation:
		return "confirmation"
	case typeDone:
		return "done"
	case typeAlert:
		return "alert"
	}
	return fmt.Sprintf("message type %d", uint8(t))
}

// Sizes and limits, in bytes where nothing else is said.
const (
	headerSize = 4 // type, 24-bit length of the body
	nonceSize  = 32
	macSize    = 48 // HMAC-SHA-384

	maxTunnel = 64 // of a tunnel's name
	maxName   = 32 // of a suite's, a combiner's, a trigger's name
	maxSuites = 64 // in a proposal, their number

	maxProposalBody = 1 + (1 + maxTunnel) + (2 + maxSuites*(1+maxName)) + (1 + maxName) + 1 + 1 + 4 + 1 + (1 + maxName) + 4 + nonceSize
)

// maxOfferBody is the length of the longest offer with the suite; only a signature can be shorter than its limit.
func maxOfferBody(s pqc.Suite) int {
	return 1 + len(s.String()) + nonceSize + 4 +
		2 + s.KEM.EncapsulationKeySize() + 2 + s.Signature.PublicKeySize() + 2 + s.Signature.SignatureSize()
}

// maxAnswerBody is the length of the longest answer with the suite.
func maxAnswerBody(s pqc.Suite, mutual bool) int {
	n := 2 + s.KEM.CiphertextSize() + 2 + 2 + macSize
	if mutual {
		n += s.Signature.PublicKeySize() + s.Signature.SignatureSize()
	}
	return n
}

type proposal struct {
	tunnel        string
	suites        []string
	combiner      string
	pinned        bool
	mutual        bool
	spi           uint32
	encapsulation Encapsulation
	trigger       string
	replaces      uint32
	nonce         [nonceSize]byte
}

type offer struct {
	suite            string
	nonce            [nonceSize]byte
	spi              uint32
	encapsulationKey []byte
	publicKey        []byte
	signature        []byte
}

type answer struct {
	ciphertext []byte
	publicKey  []byte // empty unless mutual
	signature  []byte // empty unless mutual
	mac        [macSize]byte
}

// begin writes a header without a length and the first part of a body that will have size bytes; more would cost a copy
// and no more.
func begin(t messageType, size int, part func(*cryptobyte.Builder)) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, headerSize+size))
	b.AddUint8(uint8(t))
	b.AddUint24(0)
	part(b)
	return b.Bytes()
}

// finish writes the length of the body into the header.
func finish(message []byte) ([]byte, error) {
	size := len(message) - headerSize
	if size >= 1<<24 {
		return nil, fmt.Errorf("body of %d bytes, want less than 2^24", size)
	}
	message[1], message[2], message[3] = byte(size>>16), byte(size>>8), byte(size)
	return message, nil
}

func (m *proposal) encode() ([]byte, error) {
	size := maxProposalBody - (maxSuites-len(m.suites))*(1+maxName)
	message, err := begin(typeProposal, size, func(b *cryptobyte.Builder) {
		b.AddUint8(version)
		addString(b, m.tunnel)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, s := range m.suites {
				addString(b, s)
			}
		})
		addString(b, m.combiner)
		b.AddUint8(bit(m.pinned))
		b.AddUint8(bit(m.mutual))
		b.AddUint32(m.spi)
		b.AddUint8(uint8(m.encapsulation))
		addString(b, m.trigger)
		b.AddUint32(m.replaces)
		b.AddBytes(m.nonce[:])
	})
	if err != nil {
		return nil, err
	}
	return finish(message)
}

func (m *proposal) decode(body []byte) error {
	s := cryptobyte.String(body)
	var v, encapsulation uint8
	if !s.ReadUint8(&v) {
		return fmt.Errorf("empty")
	}
	if v != version {
		return fmt.Errorf("version %d, want %d", v, version)
	}
	var suites cryptobyte.String
	if !readString(&s, &m.tunnel) || !s.ReadUint16LengthPrefixed(&suites) {
		return errTruncated
	}
	m.suites = nil
	for !suites.Empty() {
		if len(m.suites) == maxSuites {
			return fmt.Errorf("more than %d suites", maxSuites)
		}
		var name string
		if !readString(&suites, &name) {
			return errTruncated
		}
		if len(name) == 0 || len(name) > maxName {
			return fmt.Errorf("suite's name of %d bytes, want 1 to %d", len(name), maxName)
		}
		m.suites = append(m.suites, name)
	}
	if len(m.suites) == 0 {
		return fmt.Errorf("no suite")
	}
	if !readString(&s, &m.combiner) || !readBit(&s, &m.pinned) || !readBit(&s, &m.mutual) || !s.ReadUint32(&m.spi) ||
		!s.ReadUint8(&encapsulation) || !readString(&s, &m.trigger) || !s.ReadUint32(&m.replaces) || !s.CopyBytes(m.nonce[:]) {
		return errTruncated
	}
	if !s.Empty() {
		return errTrailing
	}
	if len(m.combiner) == 0 || len(m.combiner) > maxName {
		return fmt.Errorf("combiner's name of %d bytes, want 1 to %d", len(m.combiner), maxName)
	}
	if m.encapsulation = Encapsulation(encapsulation); m.encapsulation > ESP {
		return fmt.Errorf("unknown %v", m.encapsulation)
	}
	p := m.public()
	return p.check()
}

func (m *proposal) public() Proposal {
	return Proposal{Tunnel: m.tunnel, SPI: m.spi, Trigger: m.trigger, Replaces: m.replaces}
}

// begin writes an offer up to its signature, which has signatureSize bytes; after the header that is what is signed.
func (m *offer) begin(signatureSize int) ([]byte, error) {
	size := 1 + len(m.suite) + nonceSize + 4 + 2 + len(m.encapsulationKey) + 2 + len(m.publicKey) + 2 + signatureSize
	return begin(typeOffer, size, func(b *cryptobyte.Builder) {
		addString(b, m.suite)
		b.AddBytes(m.nonce[:])
		b.AddUint32(m.spi)
		add16(b, m.encapsulationKey)
		add16(b, m.publicKey)
	})
}

// finishOffer adds the signature.
func finishOffer(begun, signature []byte) ([]byte, error) { return finish(append16(begun, signature)) }

// decode leaves in m slices of body. It returns the length of the part that is signed.
func (m *offer) decode(body []byte) (signed int, err error) {
	s := cryptobyte.String(body)
	if !readString(&s, &m.suite) || !s.CopyBytes(m.nonce[:]) || !s.ReadUint32(&m.spi) ||
		!read16(&s, &m.encapsulationKey) || !read16(&s, &m.publicKey) {
		return 0, errTruncated
	}
	signed = len(body) - len(s)
	if !read16(&s, &m.signature) {
		return 0, errTruncated
	}
	if !s.Empty() {
		return 0, errTrailing
	}
	if m.spi < MinSPI {
		return 0, fmt.Errorf("SPI %#x, want at least %#x (RFC 4303 section 2.1)", m.spi, MinSPI)
	}
	return signed, nil
}

// begin writes an answer up to its signature, which has signatureSize bytes; after the header that is what is signed, if
// anything is.
func (m *answer) begin(signatureSize int) ([]byte, error) {
	size := 2 + len(m.ciphertext) + 2 + len(m.publicKey) + 2 + signatureSize + macSize
	return begin(typeAnswer, size, func(b *cryptobyte.Builder) {
		add16(b, m.ciphertext)
		add16(b, m.publicKey)
	})
}

// finishAnswer adds the MAC after the signature.
func finishAnswer(unconfirmed, mac []byte) ([]byte, error) {
	return finish(append(unconfirmed, mac...))
}

// decode leaves in m slices of body. It returns the length of the part that is signed; the signature follows, then the
// MAC.
func (m *answer) decode(body []byte) (signed int, err error) {
	s := cryptobyte.String(body)
	if !read16(&s, &m.ciphertext) || !read16(&s, &m.publicKey) {
		return 0, errTruncated
	}
	signed = len(body) - len(s)
	if !read16(&s, &m.signature) || !s.CopyBytes(m.mac[:]) {
		return 0, errTruncated
	}
	if !s.Empty() {
		return 0, errTrailing
	}
	return signed, nil
}

// encodeMAC makes a confirmation or a done message.
func encodeMAC(t messageType, mac []byte) ([]byte, error) {
	return finish(append(append(make([]byte, 0, headerSize+macSize), byte(t), 0, 0, 0), mac...))
}

func encodeAlert(a Alert) []byte { return []byte{byte(typeAlert), 0, 0, 1, byte(a)} }

var (
	errTruncated = errors.New("a field is cut off or badly encoded")
	errTrailing  = errors.New("bytes after the last field")
)

func addString(b *cryptobyte.Builder, s string) {
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
}

func readString(s *cryptobyte.String, out *string) bool {
	var field cryptobyte.String
	if !s.ReadUint8LengthPrefixed(&field) {
		return false
	}
	*out = string(field)
	return true
}

func add16(b *cryptobyte.Builder, field []byte) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(field) })
}

func read16(s *cryptobyte.String, out *[]byte) bool {
	return s.ReadUint16LengthPrefixed((*cryptobyte.String)(out))
}

func bit(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}

// readBit knows one encoding of each value, so that no two messages mean the same.
func readBit(s *cryptobyte.String, on *bool) bool {
	var b uint8
	if !s.ReadUint8(&b) || b > 1 {
		return false
	}
	*on = b == 1
	return true
}
