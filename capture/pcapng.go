package capture

import (
	"encoding/binary"
	"math"
)

// The blocks of a pcapng file (draft-ietf-opsawg-pcapng), little endian.
const (
	blockSection    = 0x0a0d0d0a
	blockInterface  = 1
	blockStatistics = 5
	blockPacket     = 6
	blockSecrets    = 10

	byteOrder     = 0x1a2b3c4d
	secretsTLS    = 0x544c534b // "TLSK": lines of a TLS key log
	optionComment = 1
)

// block begins a block. Its end writes the two lengths.
func block(b []byte, kind uint32) []byte {
	b = binary.LittleEndian.AppendUint32(b, kind)
	return binary.LittleEndian.AppendUint32(b, 0)
}

// end completes the block that begins at from.
func end(b []byte, from int) []byte {
	b = binary.LittleEndian.AppendUint32(b, 0)
	size := uint32(len(b) - from)
	binary.LittleEndian.PutUint32(b[from+4:], size)
	binary.LittleEndian.PutUint32(b[len(b)-4:], size)
	return b
}

// padded appends bytes and fills up to a multiple of 4.
func padded(b, data []byte) []byte {
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

func option(b []byte, code uint16, value []byte) []byte {
	if len(value) > math.MaxUint16 {
		value = value[:math.MaxUint16]
	}
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return padded(b, value)
}

// text appends an option unless it is empty.
func text(b []byte, code uint16, value string) []byte {
	if value == "" {
		return b
	}
	return option(b, code, []byte(value))
}

func number(b []byte, code uint16, value uint64) []byte {
	return option(b, code, binary.LittleEndian.AppendUint64(nil, value))
}

// noMoreOptions ends the options of a block.
func noMoreOptions(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, 0) }

// instant appends nanoseconds since 1970 as a block has them: the upper half first.
func instant(b []byte, ns int64) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(uint64(ns)>>32))
	return binary.LittleEndian.AppendUint32(b, uint32(ns))
}

// appendSection appends a section header block. The application's name comes first: package report knows a capture by it.
func appendSection(b []byte, comment string) []byte {
	from := len(b)
	b = block(b, blockSection)
	b = binary.LittleEndian.AppendUint32(b, byteOrder)
	b = binary.LittleEndian.AppendUint16(b, 1)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint64(b, math.MaxUint64) // length: not known
	b = text(b, 4, "pqlab")
	b = text(b, 3, "linux")
	b = text(b, optionComment, comment)
	return end(noMoreOptions(b), from)
}

// description is what an interface block says.
type description struct {
	name, description, comment string
	link                       uint16 // type of link layer
	snap                       uint32 // 0: whole frames
	speed                      uint64 // bits per second; 0: not said
}

func appendInterface(b []byte, d description) []byte {
	from := len(b)
	b = block(b, blockInterface)
	b = binary.LittleEndian.AppendUint16(b, d.link)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint32(b, d.snap)
	b = text(b, 2, d.name)
	b = text(b, 3, d.description)
	if d.speed > 0 {
		b = number(b, 8, d.speed)
	}
	b = option(b, 9, []byte{9}) // time stamps in nanoseconds
	b = text(b, 12, "linux")
	b = text(b, optionComment, d.comment)
	return end(noMoreOptions(b), from)
}

// appendPacket appends an enhanced packet block.
func appendPacket(b []byte, p *frame, id int, comment string) []byte {
	from := len(b)
	b = block(b, blockPacket)
	b = binary.LittleEndian.AppendUint32(b, uint32(id))
	b = instant(b, p.at)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p.data)))
	b = binary.LittleEndian.AppendUint32(b, uint32(max(p.length, len(p.data))))
	b = padded(b, p.data)
	b = text(b, optionComment, comment)
	b = option(b, 2, []byte{byte(p.direction), 0, 0, 0})
	return end(noMoreOptions(b), from)
}

// packetOverhead bounds the bytes of a packet block without its data and its comment.
const packetOverhead = 64

// appendStatistics appends an interface statistics block. Times are nanoseconds since 1970.
func appendStatistics(b []byte, id int, begin, now int64, s Statistics) []byte {
	from := len(b)
	b = block(b, blockStatistics)
	b = binary.LittleEndian.AppendUint32(b, uint32(id))
	b = instant(b, now)
	b = option(b, 2, instant(nil, begin))
	b = option(b, 3, instant(nil, now))
	b = number(b, 4, s.Captured+s.Dropped)
	b = number(b, 5, s.Dropped)
	b = number(b, 8, s.Captured)
	return end(noMoreOptions(b), from)
}

// appendSecrets appends a decryption secrets block with lines of a TLS key log.
func appendSecrets(b, lines []byte) []byte {
	from := len(b)
	b = block(b, blockSecrets)
	b = binary.LittleEndian.AppendUint32(b, secretsTLS)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(lines)))
	return end(padded(b, lines), from)
}
