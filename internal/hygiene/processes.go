package hygiene

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// process is what is known of one.
type process struct {
	parent  int
	started uint64 // clock ticks after boot
	name    string
	zombie  bool
	token   string // value of Variable when it was started
}

// takeProcesses sees the processes, and the network namespaces that they have.
func (s *Snapshot) takeProcesses() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	s.processes = map[int]process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, ok := readProcess(pid)
		if !ok {
			continue // it has ended meanwhile
		}
		s.processes[pid] = p
		where := p.name
		if p.zombie {
			where += ", a zombie"
		}
		s.add(processes, fmt.Sprintf("%d of tick %d", pid, p.started), detail{pid: pid, where: where})
		for ns, where := range heldBy(pid) {
			s.add(namespaces, ns, detail{holders: []int{pid}, where: fmt.Sprintf("%s of process %d, %s", where, pid, p.name)})
		}
	}
	return nil
}

func readProcess(pid int) (process, bool) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	b, err := os.ReadFile(dir + "stat")
	if err != nil {
		return process{}, false
	}
	// The name is in parentheses and may hold any character (proc(5)).
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	fields := strings.Fields(string(b[end+1:])) // from the third on: state, ppid, …; starttime is the 22nd
	if len(fields) < 20 {
		return process{}, false
	}
	p := process{name: string(b[open+1 : end]), zombie: fields[0] == "Z" || fields[0] == "X"}
	p.parent, _ = strconv.Atoi(fields[1])
	p.started, _ = strconv.ParseUint(fields[19], 10, 64)
	environ, _ := os.ReadFile(dir + "environ")
	for v := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(v, []byte(Variable+"=")); ok {
			p.token = string(value)
		}
	}
	return p, true
}

// heldBy returns the network namespaces that a process has, and how it has them.
func heldBy(pid int) map[string]string {
	held := map[string]string{}
	dir := fmt.Sprintf("/proc/%d", pid)
	look := func(link, how string) {
		target, err := os.Readlink(link)
		if err == nil && strings.HasPrefix(target, "net:[") && held[target] == "" {
			held[target] = how
		}
	}
	look(dir+"/ns/net", "namespace")
	tasks, _ := os.ReadDir(dir + "/task")
	for _, t := range tasks {
		look(filepath.Join(dir, "task", t.Name(), "ns/net"), "thread "+t.Name())
	}
	fds, _ := os.ReadDir(dir + "/fd")
	for _, fd := range fds {
		look(filepath.Join(dir, "fd", fd.Name()), "descriptor "+fd.Name())
	}
	return held
}
