package overlinks

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// retransmitted is how many TCP segments both nodes have sent again since they are there.
func (p *point) retransmitted() (n uint64, err error) {
	for _, node := range []string{"a", "b"} {
		err := p.lab.Node(node).Namespace().Do(func() error {
			text, err := os.ReadFile("/proc/thread-self/net/snmp")
			if err != nil {
				return err
			}
			k, err := retransSegs(text)
			n += k
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("node %s: retransmissions: %w", node, err)
		}
	}
	return n, nil
}

// retransSegs finds tcpRetransSegs (RFC 4022) in /proc/net/snmp: of each protocol a line of names and one of values.
func retransSegs(snmp []byte) (uint64, error) {
	var names []string
	for line := range bytes.Lines(snmp) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || fields[0] != "Tcp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		i := slices.Index(names, "RetransSegs")
		if i < 0 || i >= len(fields) {
			break
		}
		return strconv.ParseUint(fields[i], 10, 64)
	}
	return 0, fmt.Errorf("/proc/net/snmp has no Tcp RetransSegs")
}
