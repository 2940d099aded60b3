//! The cycles of a graph.

/// The strongly connected components of the graph with these edges, each after those that it leads
/// to, by Tarjan's algorithm without recursion.
pub(super) fn components(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut search = Search {
        number: vec![None; edges.len()],
        low: vec![0; edges.len()],
        on_stack: vec![false; edges.len()],
        stack: Vec::new(),
        next: 0,
        found: Vec::new(),
    };
    for start in 0..edges.len() {
        if search.number.get(start) == Some(&None) {
            search.from(start, edges);
        }
    }
    search.found
}

struct Search {
    number: Vec<Option<usize>>,
    low: Vec<usize>,
    on_stack: Vec<bool>,
    stack: Vec<usize>,
    next: usize,
    found: Vec<Vec<usize>>,
}

impl Search {
    fn from(&mut self, start: usize, edges: &[Vec<usize>]) {
        // A node, and how many of its edges were followed.
        let mut calls = vec![(start, 0)];
        self.enter(start);
        while let Some((node, followed)) = calls.last_mut() {
            let node = *node;
            if let Some(&to) = edges[node].get(*followed) {
                *followed += 1;
                match self.number[to] {
                    None => {
                        self.enter(to);
                        calls.push((to, 0));
                    }
                    Some(number) if self.on_stack[to] => {
                        self.low[node] = self.low[node].min(number);
                    }
                    Some(_) => {}
                }
                continue;
            }
            calls.pop();
            if let Some((parent, _)) = calls.last() {
                self.low[*parent] = self.low[*parent].min(self.low[node]);
            }
            if self.number[node] == Some(self.low[node]) {
                let at = self.stack.iter().rposition(|other| *other == node);
                let component = self.stack.split_off(at.unwrap_or(0));
                component
                    .iter()
                    .for_each(|node| self.on_stack[*node] = false);
                self.found.push(component);
            }
        }
    }

    fn enter(&mut self, node: usize) {
        self.number[node] = Some(self.next);
        self.low[node] = self.next;
        self.next += 1;
        self.on_stack[node] = true;
        self.stack.push(node);
    }
}
