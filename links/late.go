package links

import (
	"fmt"
	"time"
)

// tolerable is by how much one in a hundred packets of a wire may come too late: what a processor that has other work makes
// of a schedule now and then.
const tolerable = time.Millisecond

// enough packets have one in a hundred.
const enough = 100

// Late says in words where the machine was too busy for the wire to keep its schedule, "from node a: …"; nil if it was
// not, and of other links.
func (l *Link) Late() []string {
	d, ok := l.body.(*driven)
	if !ok {
		return nil
	}
	state := l.State()
	var all []string
	for side, w := range state.Wire {
		for _, late := range w.Late() {
			all = append(all, "from node "+[2]string{d.plan.A.Node, d.plan.B.Node}[side]+": "+late)
		}
	}
	return all
}

// Late says in words how this machine was too busy to keep the schedule of one direction of a wire; nil if it was not.
func (w Wire) Late() (all []string) {
	if w.Lateness.Packets >= enough && w.Lateness.P99 > tolerable {
		all = append(all, fmt.Sprintf("one in a hundred of %d delayed packets came more than %.3g ms late, one %.3g ms",
			w.Lateness.Packets, ms(w.Lateness.P99), ms(w.Lateness.Max)))
	}
	if w.Missed > 0 {
		all = append(all, fmt.Sprintf("%d packets that nobody read in time were lost before the link", w.Missed))
	}
	return all
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
