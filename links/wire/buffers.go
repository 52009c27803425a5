package wire

import "math/bits"

// buffers are those of one wire's packets that are not in use. There are four sizes up to each doubling, so that a packet that
// is on its way takes a quarter more than its length at most, if it is of 128 bytes or more; a frame of 1514 bytes 1536. The
// zero value is empty.
type buffers struct {
	free [classes][][]byte
	kept int // bytes, but of the biggest
}

const (
	smallest = 128
	classes  = 38
	// biggest is for what a read may give: a little more than 64 KiB.
	biggest = 66 << 10

	// spare is how many bytes are kept, besides as many of the biggest as a port may read before any packet is given out.
	spare = 512 << 10
)

func sizeOf(class int) int {
	switch class {
	case 0:
		return smallest
	case classes - 1:
		return biggest
	}
	doubled, quarter := smallest<<((class-1)/4), (class-1)%4+1
	return doubled + doubled/4*quarter
}

// classOf is the smallest class whose buffers hold n bytes, of at most biggest.
func classOf(n int) int {
	if n <= smallest {
		return 0
	}
	doublings := bits.Len(uint(n-1)) - bits.Len(uint(smallest))
	doubled := smallest << doublings
	return 1 + 4*doublings + (n-1-doubled)/(doubled/4)
}

// get gives a buffer of n bytes, of 1 to biggest, with anything in it.
func (b *buffers) get(n int) []byte {
	c := classOf(n)
	if last := len(b.free[c]) - 1; last >= 0 {
		buf := b.free[c][last]
		b.free[c][last] = nil
		b.free[c] = b.free[c][:last]
		if c < classes-1 {
			b.kept -= sizeOf(c)
		}
		return buf[:n]
	}
	return make([]byte, n, sizeOf(c))
}

// put takes back a buffer that get gave. Another is left to the garbage collector.
func (b *buffers) put(buf []byte) {
	if cap(buf) == 0 || cap(buf) > biggest {
		return
	}
	c := classOf(cap(buf))
	switch {
	case cap(buf) != sizeOf(c):
	case c == classes-1:
		if len(b.free[c]) < batch {
			b.free[c] = append(b.free[c], buf[:0])
		}
	case b.kept+sizeOf(c) <= spare:
		b.free[c] = append(b.free[c], buf[:0])
		b.kept += sizeOf(c)
	}
}
