package ipsec

import (
	"math/bits"
	"time"
)

// What a Tunnel uses where its Limits leave Time or Blocks zero.
const (
	DefaultTime   = 10 * time.Minute
	DefaultBlocks = 1 << 30
)

// BlockSize is the block of AES in bytes.
const BlockSize = 16

// Blocks is the number of AES blocks that n bytes of plaintext (inner packet, padding, trailer) cost in one packet:
// ceil(n/16), for GCM encrypts with whole counter blocks of which the last may be used in part (SP 800-38D section
// 6.5, RFC 4106 section 3.2). The packet's one further block, which masks the tag, carries no plaintext and is not
// counted.
func Blocks(n int) uint64 { return (uint64(n) + BlockSize - 1) / BlockSize }

// hardFactor is how far the hard limits of volume lie above the soft ones. A soft limit starts an exchange, during
// which traffic goes on; the hard one bounds the key. An exchange takes a fraction of a second and the default soft
// limit is 16 GiB, so three times as much is room for many failures. It is safe: four times the default, 2^32
// blocks, leaves GCM's distinguishing advantage at about (2^32)^2/2^129 = 2^-65.
const hardFactor = 4

// The hard limit of time is the soft one and a quarter, and not less than a minute later: room for several attempts
// that run into their deadlines, whatever the soft limit.
const minTimeMargin = time.Minute

func (l Limits) withDefaults() Limits {
	if l.Time == 0 {
		l.Time = DefaultTime
	}
	if l.Blocks == 0 {
		l.Blocks = DefaultBlocks
	}
	return l
}

// hard gives the limits that end an SA whose rekey is due at l.
func (l Limits) hard() Limits {
	l.Time += max(l.Time/4, minTimeMargin)
	l.Blocks, l.Bytes, l.Packets = times(l.Blocks, hardFactor), times(l.Bytes, hardFactor), times(l.Packets, hardFactor)
	return l
}

// late gives the limits by which the other end begins if the one whose turn it is has not: an eighth later. Without
// it both ends would begin at every limit, and one of the two exchanges would be for nothing.
func (l Limits) late() Limits {
	l.Time += l.Time / 8
	l.Blocks, l.Bytes, l.Packets = plusEighth(l.Blocks), plusEighth(l.Bytes), plusEighth(l.Packets)
	return l
}

// volume is what a dataplane watches.
func (l Limits) volume() Limits {
	l.Time = 0
	return l
}

func times(a, b uint64) uint64 {
	if high, low := bits.Mul64(a, b); high == 0 {
		return low
	}
	return 1<<64 - 1
}

// plusEighth rounds up, so that later is later.
func plusEighth(a uint64) uint64 {
	eighth := a / 8
	if a%8 != 0 {
		eighth++
	}
	if sum, carry := bits.Add64(a, eighth, 0); carry == 0 {
		return sum
	}
	return 1<<64 - 1
}
