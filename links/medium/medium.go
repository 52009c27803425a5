// Package medium models what lies between the ends of links, in virtual time: for each packet that enters it decides
// whether, when and where it comes out. It knows no clock, no socket and no goroutine, so that the same model is driven in
// real time by package wire and at any speed by a simulator.
package medium

import "time"

// Packet is an Ethernet frame, or, where a Medium takes such whole, the large segment that a sender's kernel leaves
// uncut: one set of headers and the payload of many frames.
type Packet struct {
	Size   int    // bytes that the model counts, as on the link: of the frame without preamble and checksum; of all frames of a large segment
	Frames int    // that it is cut to; 1 for a frame
	Data   []byte // the Medium's from Enter until it gives the packet back; it does not look at it; nil in a simulation
	// Waited is for how long, at most, it had been there before it entered. It changes nothing: the Medium gives it back.
	Waited time.Duration

	// A Medium fills in these.
	From    int           // port that it entered by
	Number  uint64        // among those that entered there, from 0; a copy has that of the packet it was made of
	Entered time.Duration // when
	Due     time.Duration // when it came out or was lost, in virtual time, however late Leave was called; until then, when it came into a queue
	Flip    int           // bit of the frame that is to be turned over, counted from 1: bit (Flip-1)%8 of byte (Flip-1)/8; 0: none
	Fate    Fate
	Copy    bool // it was made by duplication; its Data is its own

	to   int16         // port that a Replay gives it out at
	rest time.Duration // of its delay, for when it was sent
}

// Fate says what became of a packet. The zero value is Delivered.
type Fate uint8

const (
	Delivered   Fate = iota
	LostQueue        // no room in the queue, or dropped by its management
	LostChance       // by the loss model
	LostTrace        // by a loss trace
	LostOutage       // the link was out
	LostRetries      // sent as often as the link layer may, and never received
	fates
)

// Lost says whether the packet never arrives.
func (f Fate) Lost() bool { return f != Delivered }

func (f Fate) String() string {
	names := [...]string{"delivered", "lost (queue)", "lost (chance)", "lost (trace)", "lost (outage)", "lost (retries)"}
	if int(f) < len(names) {
		return names[f]
	}
	return "unknown"
}

// Nowhere is the port that a lost packet goes to.
const Nowhere = -1

// Medium joins ports, which are numbered from 0. A link between two nodes has two; a radio cell has two for each
// station: the station's own and the access point's.
//
// Times are durations since the medium's start, and never go back from call to call. A Medium is for one goroutine.
type Medium interface {
	// Enter takes a packet that port sends. Whatever becomes of it, Leave gives it back once.
	Enter(now time.Duration, port int, p Packet)
	// Next is when Leave has something to do; ok is false if nothing is on its way. It may be past.
	Next() (at time.Duration, ok bool)
	// Leave gives out what is due until now, in order of time: with the port that gets it, or Nowhere if it was lost.
	// out may not call the Medium.
	Leave(now time.Duration, out func(port int, p Packet))
	// Whole is the largest Size of a packet of many frames that port may send; 0: single frames only. It may change
	// whenever the medium is changed.
	Whole(port int) int
}

// Counters tell what became of what entered at one port.
type Counters struct {
	Packets, Bytes uint64 // that entered
	Fates          [fates]uint64
	Copies         uint64 // made by duplication; they are among Fates
	Corrupted      uint64
	Reordered      uint64 // that skipped the delay
}

// Count notes what a Medium gives back.
func (c *Counters) Count(p Packet) {
	c.Fates[p.Fate]++
	if p.Copy {
		c.Copies++
	}
	if p.Flip > 0 && !p.Fate.Lost() {
		c.Corrupted++
	}
}

// Lost is how many packets never arrived.
func (c Counters) Lost() (n uint64) {
	for f, k := range c.Fates {
		if Fate(f).Lost() {
			n += k
		}
	}
	return n
}
