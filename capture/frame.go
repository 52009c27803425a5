package capture

// frame is one that waits for its turn in a file.
type frame struct {
	at        int64  // nanoseconds since 1970
	number    uint64 // of reading, for those of the same instant
	tap       *Tap
	direction direction
	length    int // bytes that it had, of which data may be the first
	data      []byte
}

// direction as epb_flags has it.
type direction byte

const (
	inbound  direction = 1
	outbound direction = 2
)

// queue is a heap of packets, the oldest first.
type queue []*frame

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].number < q[j].number
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*frame)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	p := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return p
}

// slab gives room for the bytes of packets without an allocation for each. What it gave is freed together.
type slab []byte

const slabSize = 1 << 18

func (s *slab) copy(b []byte) []byte {
	if len(b) > slabSize/4 {
		return append([]byte(nil), b...)
	}
	if len(b) > len(*s) {
		*s = make([]byte, slabSize)
	}
	out := (*s)[:len(b):len(b)]
	*s = (*s)[len(b):]
	copy(out, b)
	return out
}
