package lab

import "testing"

func TestSocketDrops(t *testing.T) {
	t.Parallel()
	const head = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n"
	line := func(port, drops string) string {
		return "  512: 0100000A:" + port + " 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 00000000cafebabe " + drops + "         \n"
	}
	for name, tt := range map[string]struct {
		table string
		want  uint64
		fails bool
	}{
		"no socket":   {head, 0, false},
		"two of four": {head + line("1194", "5") + line("1195", "7") + line("1194", "11") + line("11940", "13"), 16, false},
		"no counter":  {"  sl  local_address\n", 0, true},
		"no number":   {head + line("1194", "many"), 0, true},
	} {
		if got, err := socketDrops([]byte(tt.table), 0x1194); got != tt.want || (err != nil) != tt.fails {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}
