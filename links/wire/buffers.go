package wire

import "math/bits"

// buffers are those of one wire's packets that are not in use. Their sizes double, so that a packet that is on its way
// takes little more than twice its length at most. The zero value is empty.
type buffers struct {
	free [classes][][]byte
}

const (
	smallest = 256
	classes  = 9
	// biggest is for what a read may give: a little more than 64 KiB.
	biggest = 66 << 10

	// spare is how many bytes of each size are kept.
	spare = 1 << 20
)

func sizeOf(class int) int {
	if class == classes-1 {
		return biggest
	}
	return smallest << class
}

// classOf is the smallest class whose buffers hold n bytes, of at most biggest.
func classOf(n int) int { return min(max(bits.Len(uint(n-1)/smallest), 0), classes-1) }

// get gives a buffer of n bytes, of 1 to biggest, with anything in it.
func (b *buffers) get(n int) []byte {
	c := classOf(n)
	if last := len(b.free[c]) - 1; last >= 0 {
		buf := b.free[c][last]
		b.free[c][last] = nil
		b.free[c] = b.free[c][:last]
		return buf[:n]
	}
	return make([]byte, n, sizeOf(c))
}

// put takes back a buffer that get gave. Another is left to the garbage collector.
func (b *buffers) put(buf []byte) {
	if cap(buf) == 0 || cap(buf) > biggest {
		return
	}
	if c := classOf(cap(buf)); cap(buf) == sizeOf(c) && len(b.free[c]) < spare/sizeOf(c) {
		b.free[c] = append(b.free[c], buf[:0])
	}
}
