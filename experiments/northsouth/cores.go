package northsouth

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// cores is how all cores' time was spent since the machine came up, in clock ticks.
type cores struct{ idle, all uint64 }

func readCores() (cores, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cores{}, err
	}
	return parseCores(string(text))
}

// parseCores reads the first line of /proc/stat (proc_stat(5)): user, nice, system, idle, iowait, irq, softirq, steal; guests' time,
// which follows, is in user's.
func parseCores(stat string) (c cores, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return c, fmt.Errorf("/proc/stat begins with %.40q, which is not of all cores", line)
	}
	for i, f := range fields[1:9] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return c, fmt.Errorf("/proc/stat: %w", err)
		}
		c.all += n
		if i == 3 || i == 4 {
			c.idle += n
		}
	}
	return c, nil
}

// idleSince is the share of the time that nobody used.
func (c cores) idleSince(before cores) float64 {
	if c.all <= before.all || c.idle < before.idle {
		return 0
	}
	return float64(c.idle-before.idle) / float64(c.all-before.all)
}
