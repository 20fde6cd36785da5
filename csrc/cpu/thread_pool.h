// A few threads that wait for work. The caller takes part in it.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace wmf {

class ThreadPool {
 public:
  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  // Calls task(0) ... task(n - 1) at the same time, task(0) on the calling thread, and waits for
  // all. While it waits for the others it calls idle() about 20 times a second. If tasks throw, one
  // of their exceptions is thrown here. One run at a time: see run_in_parallel.
  void run(int n, const std::function<void(int)>& task, const std::function<void()>& idle);

 private:
  void work(int index);

  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::vector<std::thread> threads_;  // threads_[i] runs task(i + 1)
  const std::function<void(int)>* task_ = nullptr;
  long generation_ = 0;  // which run the threads are to join
  int n_ = 0;            // tasks of this run
  int running_ = 0;      // of the threads
  bool stop_ = false;
  std::exception_ptr error_;
};

// ThreadPool::run on the process's own pool; on a pool for this call alone if another thread is
// using that one. A fork()ed child gets a pool of its own.
void run_in_parallel(
    int n, const std::function<void(int)>& task, const std::function<void()>& idle = [] {});

}  // namespace wmf
