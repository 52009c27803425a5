// Package nodes makes the machines of a lab: it turns a namespace into a node, caps its CPU by a cgroup, and starts
// processes in it. It knows nothing of what they do.
package nodes
